"""Names of what goes in and out of a model that was taken apart; read by `predict` without TensorFlow."""

SETTINGS = "settings.json"  # beside the vocabularies
TOKEN = "token"
POSITION = "position"
MASK = "memory_mask"  # int32 [B, S], 1 where the source has a token
MEMORY = "memory"  # the encoder's outputs [B, S, D]
