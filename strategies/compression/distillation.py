"""Distillation: a student learns from the outputs, and from the inside, of teachers.

    Hinton et al. 2015 (arXiv 1503.02531): (1 - alpha) * own loss + alpha * T^2 * KL(p || q), p and q the softmax of the
    teacher's and the student's logits over T. T^2 keeps the gradient's size while T is chosen. Of several teachers p is
    the mean.
    FitNets (Romero et al. 2015, arXiv 1412.6550), equation 3: first the layers up to a "guided" one are trained so that
    a regressor on it gives the teacher's "hint" layer, then the whole student as above.
    Attention transfer (Zagoruyko & Komodakis 2017, arXiv 1612.03928), equation 2: beside the above, maps of sum |a|^2
    over channels, divided by their norm, of student and teacher are drawn together.

The student stays the model that it is, with its own loss; only its training step is another.
"""

import tensorflow as tf
import tf_keras as keras

from layers.checking import unknown_name
from strategies import graph

HINTS = ("none", "features", "attention")


class Distillation:
    """Trains a student under teachers: `prepare`, compile, `fit`, `finish`.

    Args:
        teachers: built `keras.Model`s with the student's inputs and classes, giving logits.
        temperature: T, above 0.
        alpha: weight of the teachers, 0 <= alpha <= 1.
        hint: one of `HINTS`. "features" trains nothing but the hint: it is the first stage of FitNets. Of several pairs
            of layers it takes the middle one.
        hint_layers: [(name in the student, name in the teacher), ...]; None chooses by size, see `match_layers`.
        hint_weight: beta, of the attention maps.

    Raises:
        ValueError: a value out of its range.
    """

    def __init__(self, teachers, *, temperature=4.0, alpha=0.9, hint="none", hint_layers=None, hint_weight=1000.0):
        if not teachers:
            raise ValueError("Distillation needs at least one teacher; received none.")
        if not temperature > 0:
            raise ValueError(f"temperature must be above 0; received {temperature!r}.")
        if not 0 <= alpha <= 1:
            raise ValueError(f"alpha must be between 0 and 1; received {alpha!r}.")
        if hint not in HINTS:
            raise unknown_name("hint", hint, HINTS)
        self.teachers, self.temperature, self.alpha = tuple(teachers), float(temperature), float(alpha)
        self.hint, self.hint_layers, self.hint_weight = hint, hint_layers, float(hint_weight)

    def prepare(self, student):
        """The student as a model with the same layers whose training step listens to the teachers.

        Args:
            student: functional `keras.Model` that gives logits [B, ..., K].

        Raises:
            ValueError: a teacher has other inputs or classes, or a hint has no pair of layers.
        """
        for teacher in self.teachers:
            check_teacher(student, teacher)
        return Distilled(student, self)

    def finish(self, model):
        """The student as a plain model."""
        return keras.Model(model.input, model.output, name=model.name)


class Distilled(keras.Model):
    """A student under teachers: the functional student itself, with a training step of its own.

    The targets of a batch may be {"targets": ..., "teacher": logits}: then the teachers are not run for soft targets.
    """

    def __init__(self, student, distillation):
        super().__init__(student.input, student.output, name=student.name)
        self._distillation = distillation
        self._regressors, maps, teacher_maps, self._stage = [], [], [], None
        if distillation.hint != "none":
            maps, teacher_maps = hint_maps(student, distillation.teachers[0], distillation.hint_layers)
        if distillation.hint == "features":
            middle = (len(maps) - 1) // 2  # as in the paper: deeper hints bind the student too much
            maps, teacher_maps = maps[middle:middle + 1], teacher_maps[middle:middle + 1]
            self._regressors = [keras.layers.Dense(teacher_maps[0].shape[-1], name="regressor")]
            self._regressors[0].build(maps[0].shape)
        # Held by a function, so that Keras does not track them: teachers are neither trained nor saved with the
        # student, and the student's layers are its own already.
        whole = keras.Model(student.input, [student.output, *maps])
        guided = keras.Model(student.input, maps) if maps else None
        teacher = keras.Model(distillation.teachers[0].input, teacher_maps) if maps else None
        self._parts = lambda: (whole, guided, teacher)

    @property
    def teachers(self):
        """The models that the training step runs beside this one."""
        return self._distillation.teachers

    def train_step(self, data):
        x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(data)
        y, soft_targets = self._unpack_targets(x, y)
        recipe, (whole, guided, teacher) = self._distillation, self._parts()
        variables = self.trainable_variables
        with tf.GradientTape() as tape:
            outputs, *maps = tf.nest.flatten(whole(x, training=True))
            if recipe.hint == "features":
                hint = tf.nest.flatten(teacher(x, training=False))[0]
                loss = _mean(feature_loss(hint, self._regressors[0](maps[0])))
                variables = [*guided.trainable_variables, *self._regressors[0].trainable_variables]
            else:
                loss = (1 - recipe.alpha) * self.compiled_loss(y, outputs, sample_weight)
                if self.losses:  # penalties on weights, whole whatever alpha is
                    loss += _by_replica(tf.add_n(self.losses))
                loss += recipe.alpha * _mean(self._weighted(soft_loss(soft_targets, outputs, recipe.temperature), y))
                if maps:
                    pairs = zip(tf.nest.flatten(teacher(x, training=False)), maps)
                    loss += recipe.hint_weight * _mean(tf.add_n([attention_loss(t, s) for t, s in pairs]))
        self.optimizer.minimize(loss, variables, tape=tape)
        return self.compute_metrics(x, y, outputs, sample_weight)

    def _weighted(self, losses, y):
        """Losses [B] or [B, ...]; of sequences the sum [B] by the weights that the own loss gives their tokens."""
        token_weights = getattr(self.loss, "token_weights", None)
        return losses if token_weights is None else tf.reduce_sum(losses * token_weights(y, losses.dtype), axis=1)

    def _unpack_targets(self, x, y):
        """(the student's own targets, the teachers' mean probabilities at the temperature)."""
        recipe = self._distillation
        if isinstance(y, dict):
            return y["targets"], tf.nn.softmax(y["teacher"] / recipe.temperature)
        if recipe.hint == "features":
            return y, None
        return y, mean_probabilities([teacher(x, training=False) for teacher in recipe.teachers], recipe.temperature)


def soft_loss(probabilities, logits, temperature):
    """T^2 KL(p || softmax(logits / T)), [B, ..., K] twice -> [B, ...]."""
    logits = _precise(logits)
    probabilities = tf.cast(probabilities, logits.dtype)
    log_student = tf.nn.log_softmax(logits / temperature)
    log_teacher = tf.math.log(tf.maximum(probabilities, 1e-20))  # p log p is 0 where p is
    return temperature ** 2 * tf.reduce_sum(probabilities * (log_teacher - log_student), axis=-1)


def mean_probabilities(logits, temperature):
    """Mean over teachers of softmax(logits / T): list of [B, ..., K] -> [B, ..., K], float32."""
    return tf.add_n([tf.nn.softmax(tf.cast(value, tf.float32) / temperature) for value in logits]) / len(logits)


def feature_loss(hint, guided):
    """Half the squared distance, [B, h, w, C] twice -> [B]; a mean over the map, so that its size does not matter."""
    guided = _precise(guided)
    difference = tf.cast(hint, guided.dtype) - guided
    return tf.reduce_mean(tf.square(difference), axis=list(range(1, difference.shape.rank))) / 2


def attention_loss(teacher, student):
    """Mean squared difference of normalised attention maps, [B, h, w, C_t] and [B, h, w, C_s] -> [B]."""
    student = _precise(student)
    maps = [tf.reduce_sum(tf.square(value), axis=-1) for value in (tf.cast(teacher, student.dtype), student)]
    flat = [tf.math.l2_normalize(tf.reshape(m, [tf.shape(m)[0], -1]), axis=1) for m in maps]
    return tf.reduce_mean(tf.square(flat[0] - flat[1]), axis=1)


def hint_maps(student, teacher, pairs=None):
    """Tensors to draw together.

    Args:
        student, teacher: functional models.
        pairs: [(name of a student's layer, name of a teacher's layer), ...], or None: see `match_layers`.

    Returns:
        (student's maps, teacher's maps), lists of tensors [B, h, w, C] with equal h and w in turn.

    Raises:
        ValueError: an unknown layer, or maps of different sizes.
    """
    pairs = pairs or match_layers(student, teacher)
    mine, theirs = ([_output_of(model, pair[i]) for pair in pairs] for i, model in enumerate((student, teacher)))
    for a, b, (student_name, teacher_name) in zip(mine, theirs, pairs):
        if a.shape[1:-1] != b.shape[1:-1]:
            raise ValueError(f"Hint layers must have maps of one size; received {tuple(a.shape)} of the student's "
                             f"{student_name!r} and {tuple(b.shape)} of the teacher's {teacher_name!r}.")
    return mine, theirs


def match_layers(student, teacher):
    """Pairs of layers, (student's, teacher's): the last of each size of map that both have, from large to small.

    Raises:
        ValueError: they have no map of one size.
    """
    mine, theirs = (_last_of_each_size(model) for model in (student, teacher))
    pairs = [(mine[size], theirs[size]) for size in mine if size in theirs]
    if not pairs:
        raise ValueError(f"Student and teacher have no feature map of one size: {sorted(mine)} and {sorted(theirs)}. "
                         "Name hint layers.")
    return pairs


def check_teacher(student, teacher):
    """Raises ValueError unless a teacher takes what the student takes and gives as many classes, as logits, and nothing
    else."""
    if len(student.outputs) != 1:
        raise ValueError(f"Distillation learns from logits, the one output of a model; {student.name!r} has "
                         f"{len(student.outputs)} outputs ({', '.join(student.output_names)}). Leave the teacher out.")
    last = teacher.output._keras_history.layer if len(teacher.outputs) == 1 else None
    if isinstance(last, keras.layers.Softmax) or getattr(last, "activation", None) is keras.activations.softmax:
        raise ValueError(f"Teacher {teacher.name!r} gives probabilities, by the softmax of its layer {last.name!r}; a "
                         "student learns from logits. Give a model that ends before the softmax.")
    for what, mine, theirs in (("inputs", student.input_shape, teacher.input_shape),
                               ("outputs", student.output_shape, teacher.output_shape)):
        if mine != theirs:
            raise ValueError(f"Teacher {teacher.name!r} does not fit the student: {what} must have shape {mine}; "
                             f"received a teacher with {theirs}. Train it on the same data.")


def _last_of_each_size(model):
    """{(h, w): name of the last layer with a map of that size}, in order of the graph."""
    found = {}
    for node in graph.nodes(model):
        shape = getattr(node.outputs, "shape", None)
        if shape is not None and len(shape) == 4 \
                and not isinstance(node.layer, (keras.layers.InputLayer, keras.layers.ZeroPadding2D)):
            found[tuple(shape[1:3])] = node.layer.name
    return found


def _output_of(model, name):
    try:
        return model.get_layer(name).output
    except ValueError:
        raise unknown_name("hint layer", name, [layer.name for layer in model.layers]) from None


def _precise(value):
    """A tensor in float32 at least."""
    return value if value.dtype == tf.float64 else tf.cast(value, tf.float32)


def _mean(values):
    """Mean of [B, ...] over the global batch."""
    return _by_replica(tf.reduce_mean(values))


def _by_replica(value):
    """The part of a replica: Keras adds up the gradients of all."""
    return value / tf.distribute.get_strategy().num_replicas_in_sync
