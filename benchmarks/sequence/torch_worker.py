"""PyTorch's side of `benchmarks.transformer_speed`, in an environment of its own: the same Transformer, of PyTorch's
attention, normalisation and dropout. It reads a case a line from its standard input and answers with the seconds.
"""

import json
import sys
import time

import torch
from torch import nn

EPSILON = 1e-6


class Attention(nn.Module):
    """Multi-head attention by `scaled_dot_product_attention`, with keys and values that can be kept."""

    def __init__(self, features, heads):
        super().__init__()
        self.heads = heads
        self.query, self.key, self.value, self.out = (nn.Linear(features, features) for _ in range(4))

    def split(self, x):
        return x.unflatten(-1, (self.heads, -1)).transpose(1, 2)  # [B, H, T, d]

    def project(self, memory):
        return self.split(self.key(memory)), self.split(self.value(memory))

    def forward(self, x, keys, values, mask=None, causal=False):
        y = nn.functional.scaled_dot_product_attention(self.split(self.query(x)), keys, values, mask, is_causal=causal)
        return self.out(y.transpose(1, 2).flatten(2))


class Layer(nn.Module):
    """Pre-norm encoder or decoder layer."""

    def __init__(self, features, inner, heads, dropout, has_memory):
        super().__init__()
        self.attention = Attention(features, heads)
        self.memory_attention = Attention(features, heads) if has_memory else None
        self.feed_forward = nn.Sequential(nn.Linear(features, inner), nn.ReLU(), nn.Linear(inner, features))
        self.norms = nn.ModuleList(nn.LayerNorm(features, EPSILON) for _ in range(2 + has_memory))
        self.dropout = nn.Dropout(dropout)

    def forward(self, x, mask=None, causal=False, memory=None, memory_mask=None):
        y = self.norms[0](x)
        x = x + self.dropout(self.attention(y, *self.attention.project(y), mask, causal))
        if memory is not None:
            y = self.memory_attention(self.norms[1](x), *self.memory_attention.project(memory), memory_mask)
            x = x + self.dropout(y)
        return x + self.dropout(self.feed_forward(self.norms[-1](x)))

    def step(self, x, keys, values, place, memory_keys, memory_values, memory_mask):
        """One position, whose keys and values are written into the cache [B, H, L, d]."""
        y = self.norms[0](x)
        keys[:, :, place:place + 1], values[:, :, place:place + 1] = self.attention.project(y)
        x = x + self.attention(y, keys[:, :, :place + 1], values[:, :, :place + 1])
        x = x + self.memory_attention(self.norms[1](x), memory_keys, memory_values, memory_mask)
        return x + self.feed_forward(self.norms[-1](x))


class Transformer(nn.Module):
    """Encoder, decoder, tied embedding."""

    def __init__(self, vocabulary, layers, features, inner, heads, dropout, length):
        super().__init__()
        self.source, self.target = nn.Embedding(vocabulary, features), nn.Embedding(vocabulary, features)
        for table in (self.source, self.target):
            nn.init.normal_(table.weight, std=features ** -0.5)
        self.scale = features ** 0.5
        self.register_buffer("positions", torch.randn(length, features))  # what stands in them costs nothing
        self.encoder = nn.ModuleList(Layer(features, inner, heads, dropout, False) for _ in range(layers))
        self.decoder = nn.ModuleList(Layer(features, inner, heads, dropout, True) for _ in range(layers))
        self.encoder_norm, self.decoder_norm = nn.LayerNorm(features, EPSILON), nn.LayerNorm(features, EPSILON)
        self.dropout = nn.Dropout(dropout)

    def read(self, source):
        mask = (source != 0)[:, None, None, :]
        x = self.dropout(self.source(source) * self.scale + self.positions[:source.shape[1]])
        for layer in self.encoder:
            x = layer(x, mask)
        return self.encoder_norm(x), mask

    def forward(self, source, target):
        memory, mask = self.read(source)
        y = self.dropout(self.target(target) * self.scale + self.positions[:target.shape[1]])
        for layer in self.decoder:
            y = layer(y, causal=True, memory=memory, memory_mask=mask)
        return self.decoder_norm(y) @ self.target.weight.T

    @torch.inference_mode()
    def greedy(self, source, length):
        """`length` tokens a sentence, whatever they are."""
        memory, mask = self.read(source)
        memories = [layer.memory_attention.project(memory) for layer in self.decoder]
        shape = (source.shape[0], self.decoder[0].attention.heads, length, memories[0][0].shape[-1])
        caches = [(torch.zeros(shape), torch.zeros(shape)) for _ in self.decoder]
        token = torch.ones(source.shape[0], 1, dtype=torch.long)
        for place in range(length):
            y = self.target(token) * self.scale + self.positions[place]
            for layer, cache, known in zip(self.decoder, caches, memories):
                y = layer.step(y, *cache, place, *known, mask)
            token = (self.decoder_norm(y) @ self.target.weight.T).argmax(-1)
        return token


def training(model, case):
    """() -> one training step on a batch of random tokens without padding."""
    optimizer = torch.optim.Adam(model.parameters(), 1e-4)
    tokens = torch.randint(1, case["vocabulary"], (3, case["batch"], case["length"]))

    def step():
        model.train()
        logits = model(tokens[0], tokens[1])
        loss = nn.functional.cross_entropy(logits.flatten(0, 1), tokens[2].flatten(), ignore_index=0,
                                           label_smoothing=0.1)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss.item()

    return step


def decoding(model, case):
    """() -> greedy decoding of a batch."""
    source = torch.randint(1, case["vocabulary"], (case["batch"], case["length"]))

    def run():
        model.eval()
        return model.greedy(source, case["length"])

    return run


def main():
    torch.manual_seed(0)
    known = {}
    for line in sys.stdin:
        case = json.loads(line)
        key = json.dumps({**case, "repeats": 0})
        if key not in known:
            model = Transformer(case["vocabulary"], case["layers"], case["features"], case["inner"], case["heads"],
                                case["dropout"], case["length"])
            known[key] = {"training": training, "decoding": decoding}[case["kind"]](model, case)
            known[key]()
        began = time.perf_counter()
        for _ in range(case["repeats"]):
            known[key]()
        seconds = time.perf_counter() - began
        print(json.dumps({"seconds": seconds / case["repeats"], "torch": torch.__version__,
                          "threads": torch.get_num_threads()}), flush=True)


if __name__ == "__main__":
    main()
