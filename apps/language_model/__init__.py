"""Language models: recurrent ones and Transformers, causal and masked."""
