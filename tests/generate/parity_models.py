"""Tiny seeded models of different families with logits spread, as weights for transformers and as exported folders."""

import json
import pathlib
import string
import sys

import torch
import transformers
from torch import nn
from transformers.modeling_outputs import BaseModelOutput, Seq2SeqLMOutput

HERE = pathlib.Path(__file__).parent
VOCABULARY, WIDTH, LAYERS, HEADS, KEY_HEADS, SIZE = 99, 32, 2, 4, 2, 8
DECODER_ONLY = ["gpt2", "llama", "mistral"]
ENCODER_DECODER = ["t5", "bart", "transformer"]
SPECIAL = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}


class TransformerConfig(transformers.PretrainedConfig):
    model_type = "plain-transformer"


class Transformer(transformers.PreTrainedModel, transformers.GenerationMixin):
    """nn.Transformer between embeddings and a head, without caches."""

    config_class = TransformerConfig
    main_input_name = "input_ids"
    _no_split_modules = []

    def __init__(self, config):
        super().__init__(config)
        self.embedding = nn.Embedding(VOCABULARY, WIDTH)
        self.positions = nn.Embedding(128, WIDTH)
        self.body = nn.Transformer(WIDTH, HEADS, config.layers, config.layers, 64, batch_first=True, dropout=0.0)
        self.head = nn.Linear(WIDTH, VOCABULARY)
        self.post_init()

    def _init_weights(self, module):
        pass

    def embed(self, ids):
        return self.embedding(ids) + self.positions(torch.arange(ids.shape[1], device=ids.device))

    def encode(self, input_ids, attention_mask):
        return self.body.encoder(self.embed(input_ids), src_key_padding_mask=attention_mask == 0)

    def decode(self, input_ids, memory, attention_mask):
        length = input_ids.shape[1]
        causal = torch.ones(length, length, dtype=torch.bool).triu(1)
        return self.head(self.body.decoder(self.embed(input_ids), memory, tgt_mask=causal, tgt_is_causal=True, memory_key_padding_mask=attention_mask == 0))

    def get_encoder(self, *unused):
        outer = self

        class Encoder(nn.Module):
            main_input_name = "input_ids"

            def forward(self, input_ids, attention_mask=None, **unused):
                return BaseModelOutput(last_hidden_state=outer.encode(input_ids, attention_mask))

        return Encoder()

    def forward(self, input_ids=None, attention_mask=None, decoder_input_ids=None, encoder_outputs=None, **unused):
        return Seq2SeqLMOutput(logits=self.decode(decoder_input_ids, encoder_outputs[0], attention_mask))

    def prepare_inputs_for_generation(self, input_ids, attention_mask=None, encoder_outputs=None, **unused):
        return {"decoder_input_ids": input_ids, "attention_mask": attention_mask, "encoder_outputs": encoder_outputs}


def build(name, layers=LAYERS):
    common = dict(vocab_size=VOCABULARY, **SPECIAL)
    llama = dict(hidden_size=WIDTH, intermediate_size=64, num_hidden_layers=layers, num_attention_heads=HEADS, num_key_value_heads=KEY_HEADS,
                 max_position_embeddings=128, **common)
    if name == "gpt2":
        return transformers.GPT2LMHeadModel(transformers.GPT2Config(n_embd=WIDTH, n_layer=layers, n_head=HEADS, n_positions=128, **common))
    if name == "llama":
        return transformers.LlamaForCausalLM(transformers.LlamaConfig(**llama))
    if name == "mistral":
        return transformers.MistralForCausalLM(transformers.MistralConfig(sliding_window=6, **llama))
    if name == "t5":
        return transformers.T5ForConditionalGeneration(transformers.T5Config(
            d_model=WIDTH, d_kv=SIZE, d_ff=64, num_layers=layers, num_heads=HEADS, decoder_start_token_id=0, **common))
    if name == "bart":
        return transformers.BartForConditionalGeneration(transformers.BartConfig(
            d_model=WIDTH, encoder_layers=layers, decoder_layers=layers, encoder_attention_heads=HEADS, decoder_attention_heads=HEADS,
            encoder_ffn_dim=64, decoder_ffn_dim=64, max_position_embeddings=128, decoder_start_token_id=1, forced_eos_token_id=None, **common))
    config = TransformerConfig(is_encoder_decoder=True, decoder_start_token_id=1, layers=layers, **common)
    return Transformer(config)


def spread(model, scale, seed):
    """Weights large enough that no two tokens are nearly as good as each other."""
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in sorted(model.named_parameters()):
        if parameter.dim() > 1:
            parameter.data.normal_(0, scale, generator=generator)
    if hasattr(model, "tie_weights"):
        model.tie_weights()
    return model.eval()


SCALES = {"gpt2": 0.35, "llama": 0.3, "mistral": 0.3, "t5": 0.4, "bart": 0.35, "transformer": 0.35}


def load(name, folder=None):
    """The model with the weights in folder/weights.pt, or fresh ones. A name that ends in -small: of one layer."""
    layers = 1 if name.endswith("-small") else LAYERS
    name = name.removesuffix("-small")
    model = build(name, layers)
    if folder is not None:
        model.load_state_dict(torch.load(folder / "weights.pt"), strict=False)
        return model.eval()
    return spread(model, SCALES[name], 11 + layers)


# --- Exports (transformers 5) -----------------------------------------------------------------------------------------


class Causal(nn.Module):
    def __init__(self, model, layers, positions):
        super().__init__()
        self.model, self.layers, self.positions = model, layers, positions

    def forward(self, input_ids, attention_mask, *rest):
        from transformers.cache_utils import DynamicCache

        extra = {"position_ids": rest[0]} if self.positions else {}
        past = rest[1:] if self.positions else rest
        cache = DynamicCache([(past[2 * i], past[2 * i + 1]) for i in range(self.layers)])
        output = self.model(input_ids=input_ids, attention_mask=attention_mask, past_key_values=cache, use_cache=True, **extra)
        return (output.logits, *[x for layer in output.past_key_values.layers for x in (layer.keys, layer.values)])


class Encoder(nn.Module):
    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, input_ids, attention_mask):
        if isinstance(self.model, Transformer):
            return self.model.encode(input_ids, attention_mask)
        return self.model.get_encoder()(input_ids=input_ids, attention_mask=attention_mask, return_dict=False)[0]


class PlainDecoder(nn.Module):
    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, input_ids, encoder_attention_mask, encoder_hidden_states):
        return self.model.decode(input_ids, encoder_hidden_states, encoder_attention_mask)


def export_twins(model, folder, layers, exports, save):
    """Encoder, decoder of a prompt, decoder with past."""
    ids, mask = exports.ids, exports.padded_mask
    text, encoded, past = {0: "batch", 1: "sequence"}, {0: "batch", 1: "encoder_sequence"}, {0: "batch", 2: "past"}
    names = lambda prefix, kind: [f"{prefix}.{i}{kind}.{k}" for i in range(layers) for k in ("key", "value")]
    own, cross = names("past_key_values", ".decoder"), names("past_key_values", ".encoder")
    new_own, new_cross = names("present", ".decoder"), names("present", ".encoder")
    save(Encoder(model).eval(), (ids(2, 5), mask(2, 5)), ["input_ids", "attention_mask"], ["last_hidden_state"],
         {"input_ids": text, "attention_mask": text}, folder / "encoder_model.onnx")
    save(exports.T5Decoder(model).eval(), (ids(2, 4), mask(2, 5), torch.randn(2, 5, WIDTH)),
         ["input_ids", "encoder_attention_mask", "encoder_hidden_states"], ["logits", *new_own, *new_cross],
         {"input_ids": text, "encoder_attention_mask": encoded, "encoder_hidden_states": encoded}, folder / "decoder_model.onnx")
    caches = lambda n: [torch.randn(2, HEADS, n, SIZE) for _ in range(2 * layers)]
    save(exports.T5DecoderWithPast(model).eval(), (ids(2, 1), mask(2, 5), *caches(3), *caches(5)),
         ["input_ids", "encoder_attention_mask", *own, *cross], ["logits", *new_own],
         {"input_ids": text, "encoder_attention_mask": encoded, **{p: past for p in own}, **{p: {0: "batch", 2: "encoder_sequence"} for p in cross}},
         folder / "decoder_with_past_model.onnx")


def export_plain(model, folder, exports):
    """Encoder and a decoder without caches. torch.export, as the older exporter writes the traced length into nn.MultiheadAttention."""
    text, encoded = {0: "batch", 1: "sequence"}, {0: "batch", 1: "encoder_sequence"}
    exports.export(Encoder(model).eval(), (exports.ids(2, 5), exports.padded_mask(2, 5)), ["input_ids", "attention_mask"], ["last_hidden_state"],
                   {"input_ids": text, "attention_mask": text}, "dynamo", 18, str(folder / "encoder_model.onnx"))
    exports.export(PlainDecoder(model).eval(), (exports.ids(2, 4), exports.padded_mask(2, 5), torch.randn(2, 5, WIDTH)),
                   ["input_ids", "encoder_attention_mask", "encoder_hidden_states"], ["logits"],
                   {"input_ids": text, "encoder_attention_mask": encoded, "encoder_hidden_states": encoded}, "dynamo", 18,
                   str(folder / "decoder_model.onnx"))
    import onnx

    for path in folder.glob("*.onnx"):
        model = onnx.load(path)
        exports.strip(model, keep_metadata=False)
        onnx.save(model, path)


def export(name, folder):
    sys.path.insert(0, str(HERE.parent / "exports"))
    import make_exports as exports
    import make_generate

    torch.manual_seed(0)
    folder.mkdir(parents=True, exist_ok=True)
    layers = exports.LAYERS = 1 if name.endswith("-small") else LAYERS
    family = name.removesuffix("-small")
    model = load(name)
    torch.save(model.state_dict(), folder / "weights.pt")
    text, past = {0: "batch", 1: "sequence"}, {0: "batch", 2: "past"}
    names = lambda prefix: [f"{prefix}.{i}.{k}" for i in range(layers) for k in ("key", "value")]
    ids = exports.ids
    with torch.no_grad():
        if family in DECODER_ONLY:
            heads, positions = (HEADS if family == "gpt2" else KEY_HEADS), family == "llama"
            caches = [torch.randn(2, heads, 3, SIZE) for _ in range(2 * layers)]
            pasts, presents = names("past_key_values"), names("present")
            axes = {"input_ids": text, "position_ids": text, "attention_mask": {0: "batch", 1: "past + sequence"}, **{p: past for p in pasts}}
            place = [torch.tensor([[3, 4, 5, 6, 7]] * 2)] if positions else []
            full = torch.ones(2, 8, dtype=torch.long)
            full[1, 0] = 0
            make_generate.save(Causal(model, layers, positions).eval(), (ids(2, 5), full, *place, *caches),
                               ["input_ids", "attention_mask", *(["position_ids"] if positions else []), *pasts], ["logits", *presents], axes,
                               folder / "model.onnx")
        else:
            if family == "transformer":
                export_plain(model, folder, exports)
            else:
                export_twins(model, folder, layers, exports, make_generate.save)
    settings = {"is_encoder_decoder": family in ENCODER_DECODER, **SPECIAL}
    if family in ENCODER_DECODER:
        settings["decoder_start_token_id"] = model.config.decoder_start_token_id
    (folder / "config.json").write_text(json.dumps(settings, indent=1) + "\n")
    write_tokenizer(folder / "tokenizer.json")


def write_tokenizer(path):
    """One character a token."""
    characters = (string.ascii_letters + string.digits + string.punctuation + " ")[:VOCABULARY - 3]
    vocabulary = {"<pad>": 0, "<s>": 1, "</s>": 2, **{c: i + 3 for i, c in enumerate(characters)}}
    for i in range(len(vocabulary), VOCABULARY):
        vocabulary[chr(0x100 + i)] = i
    added = [{"id": i, "content": c, "single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
             for c, i in list(vocabulary.items())[:3]]
    path.write_text(json.dumps({
        "version": "1.0", "truncation": None, "padding": None, "added_tokens": added, "normalizer": None,
        "pre_tokenizer": {"type": "Split", "pattern": {"Regex": "[\\s\\S]"}, "behavior": "Isolated", "invert": False}, "post_processor": None,
        "decoder": {"type": "Fuse"}, "model": {"type": "WordLevel", "vocab": vocabulary, "unk_token": "<s>"}}, ensure_ascii=False))
