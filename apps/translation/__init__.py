"""Translation: recurrent encoder and decoder, with attention, and the Transformer."""
