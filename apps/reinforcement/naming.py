"""Names that flags accept, without TensorFlow, since whoever plays a .tflite file reads the configuration too."""

POLICY_GRADIENT = ("reinforce", "a2c", "ppo")
DEEP = ("dqn", *POLICY_GRADIENT)
TABULAR = ("monte_carlo", "sarsa", "expected_sarsa", "q_learning")
DYNAMIC_PROGRAMMING = ("policy_evaluation", "policy_iteration", "value_iteration")
BANDITS = ("epsilon_greedy", "ucb", "thompson", "linear_epsilon_greedy", "linucb", "linear_thompson")
ALGORITHMS = (*DEEP, *TABULAR, *DYNAMIC_PROGRAMMING, *BANDITS)
ACTIVATIONS = ("tanh", "relu")
OBJECTIVES = ("discounted", "average")
EXPLORATIONS = ("epsilon_greedy", "boltzmann", "ucb")
TRACES = ("accumulating", "replacing")
VISITS = ("first", "every")
