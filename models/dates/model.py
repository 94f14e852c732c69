"""The network: torch.nn.Transformer between a character embedding and a linear layer."""

import math

import torch

PAD, START, END, UNKNOWN = 0, 1, 2, 3
CHARACTERS = "0123456789abcdefghijklmnopqrstuvwxyz '.,-/"
VOCABULARY = ["<pad>", "<s>", "</s>", "<unk>"] + list(CHARACTERS)
IDS = {character: index for index, character in enumerate(VOCABULARY)}
WIDTH, HEADS, LAYERS, FEED_FORWARD, MAX_LENGTH = 64, 4, 2, 192, 64


def encode(text):
    return [IDS.get(character, UNKNOWN) for character in text.lower()] + [END]


def positions(length, width):
    """Sinusoidal positional encoding (Vaswani et al. 2017, section 3.5)."""
    position = torch.arange(length).unsqueeze(1)
    frequency = torch.exp(torch.arange(0, width, 2) * (-math.log(10000.0) / width))
    table = torch.zeros(length, width)
    table[:, 0::2] = torch.sin(position * frequency)
    table[:, 1::2] = torch.cos(position * frequency)
    return table


class DateModel(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding = torch.nn.Embedding(len(VOCABULARY), WIDTH)
        self.transformer = torch.nn.Transformer(WIDTH, HEADS, LAYERS, LAYERS, FEED_FORWARD, dropout=0.0, batch_first=True)
        self.head = torch.nn.Linear(WIDTH, len(VOCABULARY))
        self.register_buffer("positions", positions(MAX_LENGTH, WIDTH), persistent=False)

    def embed(self, ids, first=0):
        return self.embedding(ids) * math.sqrt(WIDTH) + self.positions[first:first + ids.shape[1]]

    def forward(self, source, target):
        padding = source == PAD
        length = target.shape[1]
        causal = torch.triu(torch.full((length, length), float("-inf")), diagonal=1)
        hidden = self.transformer(self.embed(source), self.embed(target), tgt_mask=causal, src_key_padding_mask=padding,
                                  memory_key_padding_mask=padding, tgt_is_causal=True)
        return self.head(hidden)
