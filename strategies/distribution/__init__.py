"""How a model is trained elsewhere: each strategy has `scope()`, `fit(...)` and `gather(model)`."""

from strategies.distribution.single import Single

DISTRIBUTIONS = {"single": Single}
