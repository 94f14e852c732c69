"""The first half of the architectures of make_corpus.py."""
import torch

from kinds import (COMMON, H, K, L, LLAMA, TEXT, TEXT_SHAPES, V, W, Whisper, clip_text, decoder, encoder, encoder_decoder, exports, speech, tf,
                   vision, with_past)
from handwritten import handwritten
from more_architectures import more_architectures


def of_fixtures():
    """Models of make_exports.py of which this corpus has no other form."""
    table = exports.models()
    return {label: (lambda attention, make=table[name][0]: make(), *table[name][1:6])
            for label, name in (("t5-decoder-with-past", "t5-decoder-with-past"), ("torch-transformer", "transformer"),
                                ("torch-transformer-plain", "transformer-plain"), ("torch-cross-attention", "cross-attention"))}


def architectures():
    past = lambda cls, model, options, heads=K, size=W // H: with_past(cls, model, options, heads, size)
    rope = dict(LLAMA)
    image = dict(hidden_size=W, num_hidden_layers=L, num_attention_heads=H, intermediate_size=64, image_size=16, patch_size=4)
    audio = dict(hidden_size=W, num_hidden_layers=L, num_attention_heads=H, intermediate_size=64, vocab_size=V, conv_dim=(16, 16), conv_stride=(4, 2),
                 conv_kernel=(8, 4), num_feat_extract_layers=2, num_conv_pos_embeddings=4, num_conv_pos_embedding_groups=2, feat_extract_norm="layer",
                 do_stable_layer_norm=True)
    gemma = dict(LLAMA, head_dim=8)
    table = {
        "bert": encoder(tf.BertConfig, tf.BertModel, token_types=True),
        "llama": past(tf.LlamaConfig, tf.LlamaForCausalLM, rope),
        "roberta": encoder(tf.RobertaConfig, tf.RobertaModel, dict(pad_token_id=1)),
        "distilbert": encoder(tf.DistilBertConfig, tf.DistilBertModel, dict(dim=W, hidden_dim=64, n_layers=L, n_heads=H)),
        "albert": encoder(tf.AlbertConfig, tf.AlbertModel, dict(embedding_size=16), token_types=True),
        "electra": encoder(tf.ElectraConfig, tf.ElectraModel, dict(embedding_size=16), token_types=True),
        "mpnet": encoder(tf.MPNetConfig, tf.MPNetModel),
        "modernbert": encoder(tf.ModernBertConfig, tf.ModernBertModel, dict(global_attn_every_n_layers=2, local_attention=4)),
        "deberta-v2": encoder(tf.DebertaV2Config, tf.DebertaV2Model, dict(relative_attention=True, pos_att_type=["p2c", "c2p"], position_buckets=8, share_att_key=True, norm_rel_ebd="layer_norm")),
        "opt": decoder(tf.OPTConfig, tf.OPTForCausalLM, dict(vocab_size=V, hidden_size=W, num_hidden_layers=L, num_attention_heads=H, ffn_dim=64, max_position_embeddings=64, word_embed_proj_dim=W)),
        "bloom": decoder(tf.BloomConfig, tf.BloomForCausalLM, dict(vocab_size=V, hidden_size=W, n_layer=L, n_head=H)),
        "falcon": decoder(tf.FalconConfig, tf.FalconForCausalLM, dict(vocab_size=V, hidden_size=W, num_hidden_layers=L, num_attention_heads=H, new_decoder_architecture=False, multi_query=True, alibi=False)),
        "gpt-neox": decoder(tf.GPTNeoXConfig, tf.GPTNeoXForCausalLM, dict(COMMON, max_position_embeddings=64, rotary_pct=0.5)),
        "gptj": decoder(tf.GPTJConfig, tf.GPTJForCausalLM, dict(vocab_size=V, n_embd=W, n_layer=L, n_head=H, n_positions=64, rotary_dim=4)),
        "gpt-neo": decoder(tf.GPTNeoConfig, tf.GPTNeoForCausalLM, dict(vocab_size=V, hidden_size=W, num_layers=L, num_heads=H, attention_types=[[["global", "local"], 1]], window_size=4, max_position_embeddings=64)),
        "phi": decoder(tf.PhiConfig, tf.PhiForCausalLM, dict(LLAMA, partial_rotary_factor=0.5)),
        "phi3": decoder(tf.Phi3Config, tf.Phi3ForCausalLM, rope),
        "qwen2": past(tf.Qwen2Config, tf.Qwen2ForCausalLM, rope),
        "qwen3": past(tf.Qwen3Config, tf.Qwen3ForCausalLM, dict(rope, head_dim=8)),
        "mistral": past(tf.MistralConfig, tf.MistralForCausalLM, dict(rope, sliding_window=4)),
        "gemma": past(tf.GemmaConfig, tf.GemmaForCausalLM, gemma),
        "gemma2": decoder(tf.Gemma2Config, tf.Gemma2ForCausalLM, dict(gemma, sliding_window=4, query_pre_attn_scalar=8)),
        "gemma3": decoder(tf.Gemma3TextConfig, tf.Gemma3ForCausalLM, dict(gemma, sliding_window=4, query_pre_attn_scalar=8)),
        "stablelm": decoder(tf.StableLmConfig, tf.StableLmForCausalLM, dict(rope, partial_rotary_factor=0.5)),
        "cohere": decoder(tf.CohereConfig, tf.CohereForCausalLM, rope),
        "olmo2": decoder(tf.Olmo2Config, tf.Olmo2ForCausalLM, rope),
        "starcoder2": decoder(tf.Starcoder2Config, tf.Starcoder2ForCausalLM, rope),
        "bart": encoder_decoder(tf.BartConfig, tf.BartForConditionalGeneration),
        "marian": encoder_decoder(tf.MarianConfig, tf.MarianMTModel, dict(decoder_vocab_size=V)),
        "pegasus": encoder_decoder(tf.PegasusConfig, tf.PegasusForConditionalGeneration),
        "m2m100": encoder_decoder(tf.M2M100Config, tf.M2M100ForConditionalGeneration),
        "vit": vision(tf.ViTConfig, tf.ViTModel, image),
        "deit": vision(tf.DeiTConfig, tf.DeiTModel, image),
        "beit": vision(tf.BeitConfig, tf.BeitModel, dict(image, use_relative_position_bias=True)),
        "dinov2": vision(tf.Dinov2Config, tf.Dinov2Model, image),
        "swin": vision(tf.SwinConfig, tf.SwinModel, dict(image_size=32, patch_size=2, embed_dim=16, depths=[2, 2], num_heads=[2, 4], window_size=4), size=32),
        "siglip": vision(tf.SiglipVisionConfig, tf.SiglipVisionModel, image),
        "clip-vision": vision(tf.CLIPVisionConfig, tf.CLIPVisionModel, image),
        "clip-text": (clip_text, ["input_ids", "attention_mask"], ["last_hidden_state", "pooler_output"], {"input_ids": TEXT, "attention_mask": TEXT},
                      lambda b, s: (exports.ids(b, s).clamp(3), exports.padded_mask(b, s)), TEXT_SHAPES),
        "wav2vec2": speech(tf.Wav2Vec2Config, tf.Wav2Vec2Model, audio, [(2, 100), (1, 80), (3, 160)], lambda b, n: (b, n)),
        "hubert": speech(tf.HubertConfig, tf.HubertModel, audio, [(2, 100), (1, 80), (3, 160)], lambda b, n: (b, n)),
        "whisper": (Whisper, ["input_features", "decoder_input_ids"], ["logits"], {"input_features": {0: "batch"}, "decoder_input_ids": {0: "batch", 1: "target"}},
                    lambda b, t: (torch.randn(b, 8, 24), exports.ids(b, t).clamp(3)), [(2, 4), (1, 1), (3, 6)]),
        "granite": past(tf.GraniteConfig, tf.GraniteForCausalLM, dict(rope, attention_multiplier=0.3, residual_multiplier=0.7, embedding_multiplier=2.0)),
        "smollm3": past(tf.SmolLM3Config, tf.SmolLM3ForCausalLM, dict(rope, no_rope_layer_interval=2)),
        "glm": decoder(tf.GlmConfig, tf.GlmForCausalLM, dict(rope, head_dim=8, partial_rotary_factor=0.5)),
        "olmo": decoder(tf.OlmoConfig, tf.OlmoForCausalLM, rope),
        "persimmon": decoder(tf.PersimmonConfig, tf.PersimmonForCausalLM, dict(COMMON, max_position_embeddings=64, partial_rotary_factor=0.5)),
        "mpt": decoder(tf.MptConfig, tf.MptForCausalLM, dict(vocab_size=V, d_model=W, n_layers=L, n_heads=H, expansion_ratio=2, max_seq_len=64)),
        "codegen": decoder(tf.CodeGenConfig, tf.CodeGenForCausalLM, dict(vocab_size=V, n_embd=W, n_layer=L, n_head=H, n_positions=64, rotary_dim=4)),
        "gpt-bigcode": decoder(tf.GPTBigCodeConfig, tf.GPTBigCodeForCausalLM, dict(vocab_size=V, n_embd=W, n_layer=L, n_head=H, n_positions=64, multi_query=True)),
        "nemotron": decoder(tf.NemotronConfig, tf.NemotronForCausalLM, dict(rope, partial_rotary_factor=0.5)),
        "cohere2": past(tf.Cohere2Config, tf.Cohere2ForCausalLM, dict(rope, sliding_window=4, layer_types=["sliding_attention", "full_attention"])),
        "gpt-oss": past(tf.GptOssConfig, tf.GptOssForCausalLM, dict(rope, head_dim=8, num_local_experts=2, num_experts_per_tok=1, sliding_window=4)),
        "exaone4": decoder(tf.Exaone4Config, tf.Exaone4ForCausalLM, dict(rope, sliding_window=4, head_dim=8)),
        "gpt2-long": past(tf.GPT2Config, tf.GPT2LMHeadModel, dict(vocab_size=V, n_embd=W, n_layer=L, n_head=H, n_positions=64), H),
        "bloom-past": past(tf.BloomConfig, tf.BloomForCausalLM, dict(vocab_size=V, hidden_size=W, n_layer=L, n_head=H), H),
        "deberta": encoder(tf.DebertaConfig, tf.DebertaModel, dict(relative_attention=True, pos_att_type=["c2p", "p2c"])),
        "layoutlm": encoder(tf.LayoutLMConfig, tf.LayoutLMModel),
        "esm": encoder(tf.EsmConfig, tf.EsmModel, dict(position_embedding_type="rotary", mask_token_id=98)),
        "nystromformer": encoder(tf.NystromformerConfig, tf.NystromformerModel, dict(segment_means_seq_len=64, num_landmarks=64)),
        "convbert": encoder(tf.ConvBertConfig, tf.ConvBertModel, dict(embedding_size=32)),
        "mobilebert": encoder(tf.MobileBertConfig, tf.MobileBertModel, dict(embedding_size=16, intra_bottleneck_size=16, true_hidden_size=16)),
        "rembert": encoder(tf.RemBertConfig, tf.RemBertModel, dict(input_embedding_size=16, output_embedding_size=16)),
        "squeezebert": encoder(tf.SqueezeBertConfig, tf.SqueezeBertModel, dict(embedding_size=W)),
        "data2vec-text": encoder(tf.Data2VecTextConfig, tf.Data2VecTextModel, dict(pad_token_id=1)),
        "ibert": encoder(tf.XLMRobertaConfig, tf.XLMRobertaModel, dict(pad_token_id=1)),
        "roformer": encoder(tf.RoFormerConfig, tf.RoFormerModel, dict(embedding_size=W)),
        "mbart": encoder_decoder(tf.MBartConfig, tf.MBartForConditionalGeneration),
        "blenderbot": encoder_decoder(tf.BlenderbotConfig, tf.BlenderbotForConditionalGeneration),
        "yolos": vision(tf.YolosConfig, tf.YolosModel, dict(image, image_size=[16, 16], num_detection_tokens=3)),
        "segformer": vision(tf.SegformerConfig, tf.SegformerModel, dict(depths=[1, 1], num_encoder_blocks=2, hidden_sizes=[16, 32], num_attention_heads=[1, 2], sr_ratios=[2, 1], patch_sizes=[7, 3], strides=[4, 2], mlp_ratios=[2, 2]), size=32),
        "pvt": vision(tf.PvtConfig, tf.PvtModel, dict(image_size=32, num_encoder_blocks=2, depths=[1, 1], sequence_reduction_ratios=[2, 1], hidden_sizes=[16, 32], patch_sizes=[4, 2], strides=[4, 2], num_attention_heads=[1, 2], mlp_ratios=[2, 2]), size=32),
        "mobilevit": vision(tf.MobileViTConfig, tf.MobileViTModel, dict(image_size=32, hidden_sizes=[16, 24, 32], neck_hidden_sizes=[8, 8, 16, 16, 24, 32, 32], num_attention_heads=2), size=32),
        "convnext": vision(tf.ConvNextConfig, tf.ConvNextModel, dict(hidden_sizes=[8, 16, 24, 32], depths=[1, 1, 1, 1]), size=64),
        "ijepa": vision(tf.IJepaConfig, tf.IJepaModel, image),
        "sew": speech(tf.SEWConfig, tf.SEWModel, dict(audio, squeeze_factor=2, conv_dim=(16, 16)), [(2, 128), (1, 160), (3, 192)], lambda b, n: (b, n)),
        "wavlm": speech(tf.WavLMConfig, tf.WavLMModel, dict(audio, num_buckets=8, max_bucket_distance=16), [(2, 100), (1, 80), (3, 160)], lambda b, n: (b, n)),
        "data2vec-audio": speech(tf.Data2VecAudioConfig, tf.Data2VecAudioModel, dict(audio, conv_pos_kernel_size=3, num_conv_pos_embeddings=2), [(2, 100), (1, 80), (3, 160)], lambda b, n: (b, n)),
    }
    return table | of_fixtures() | more_architectures() | handwritten()
