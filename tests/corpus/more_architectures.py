"""The second half of the architectures: families that the rules were not written against."""
import torch
from torch import nn

from kinds import H, K, L, LLAMA, TEXT, TEXT_SHAPES, V, W, Wrapped, decoder, encoder, encoder_decoder, exports, speech, tf, vision, with_past

IMAGE = dict(hidden_size=W, num_hidden_layers=L, num_attention_heads=H, intermediate_size=64, image_size=16, patch_size=4)
AUDIO = dict(hidden_size=W, num_hidden_layers=L, num_attention_heads=H, intermediate_size=64, vocab_size=V, conv_dim=(16, 16), conv_stride=(4, 2),
             conv_kernel=(8, 4), num_feat_extract_layers=2, num_conv_pos_embeddings=4, num_conv_pos_embedding_groups=2, feat_extract_norm="layer",
             do_stable_layer_norm=True)
GPT2 = dict(vocab_size=V, n_embd=W, n_layer=L, n_head=H, n_positions=64)
MOE = dict(num_local_experts=4, num_experts_per_tok=2)
WAVES = [(2, 100), (1, 80), (3, 160)]


def text_encoders():
    boxes = {"input_ids": TEXT, "attention_mask": TEXT, "bbox": TEXT}

    def layout(config_class, model_class, extra=None, inner=4):
        make, names, outputs, _, inputs, shapes = encoder(config_class, model_class, extra)

        def make_with_boxes(attention):
            wrapped = make(attention)
            wrapped.inputs = [*names, "bbox"]
            return wrapped

        def with_boxes(b, s):
            corners = torch.sort(torch.randint(0, 60, (b, s, inner)), -1).values
            return (*inputs(b, s), corners)
        return make_with_boxes, [*names, "bbox"], outputs, boxes, with_boxes, shapes

    def bare(model_class, config):
        def make(attention):
            config._attn_implementation = attention
            return Wrapped(model_class(config), ["input_ids", "attention_mask"], ["last_hidden_state"])
        return (make, *encoder(tf.BertConfig, tf.BertModel)[1:])

    def longer(entry):
        return (*entry[:-1], [(2, 16), (1, 8), (3, 28)])

    gelu = dict(hidden_act="gelu")
    return {
        "bert-generation": encoder(tf.BertGenerationConfig, tf.BertGenerationEncoder),
        "megatron-bert": encoder(tf.MegatronBertConfig, tf.MegatronBertModel, token_types=True),
        "camembert": encoder(tf.CamembertConfig, tf.CamembertModel, dict(pad_token_id=1)),
        "xlm-roberta-xl": encoder(tf.XLMRobertaXLConfig, tf.XLMRobertaXLModel, dict(pad_token_id=1)),
        "roberta-prelayernorm": encoder(tf.RobertaPreLayerNormConfig, tf.RobertaPreLayerNormModel, dict(pad_token_id=1)),
        "xmod": encoder(tf.XmodConfig, tf.XmodModel, dict(pad_token_id=1, languages=["en_XX"], default_language="en_XX")),
        "ernie": encoder(tf.ErnieConfig, tf.ErnieModel, token_types=True),
        "splinter": encoder(tf.SplinterConfig, tf.SplinterModel),
        "big-bird": encoder(tf.BigBirdConfig, tf.BigBirdModel, dict(attention_type="original_full")),
        "fnet": (lambda attention: Wrapped(tf.FNetModel(tf.FNetConfig(vocab_size=V, hidden_size=W, num_hidden_layers=L, intermediate_size=64, max_position_embeddings=64)),
                                           ["input_ids"], ["last_hidden_state"]),
                 ["input_ids"], ["last_hidden_state"], {"input_ids": TEXT}, lambda b, s: (exports.ids(b, s).clamp(3),), TEXT_SHAPES),
        "funnel": bare(tf.FunnelModel, tf.FunnelConfig(vocab_size=V, block_sizes=[1, 1], num_decoder_layers=1, d_model=W, n_head=H, d_head=8, d_inner=64)),
        "xlm": encoder(tf.XLMConfig, tf.XLMModel, dict(emb_dim=W, n_layers=L, n_heads=H, n_words=V, pad_index=0)),
        "flaubert": encoder(tf.FlaubertConfig, tf.FlaubertModel, dict(emb_dim=W, n_layers=L, n_heads=H, n_words=V, pad_index=0)),
        "xlnet": bare(tf.XLNetModel, tf.XLNetConfig(vocab_size=V, d_model=W, n_layer=L, n_head=H, d_inner=64)),
        "nomic-bert": encoder(tf.NomicBertConfig, tf.NomicBertModel),
        "eurobert": encoder(tf.EuroBertConfig, tf.EuroBertModel, dict(num_key_value_heads=K)),
        "jina-v3": encoder(tf.JinaEmbeddingsV3Config, tf.JinaEmbeddingsV3Model),
        "mra": encoder(tf.MraConfig, tf.MraModel),
        "yoso": encoder(tf.YosoConfig, tf.YosoModel, dict(use_expectation=True)),
        "longformer": encoder(tf.LongformerConfig, tf.LongformerModel, dict(attention_window=4, pad_token_id=1)),
        "canine": longer(encoder(tf.CanineConfig, tf.CanineModel, dict(num_hash_buckets=32, max_position_embeddings=128))),
        "lilt": layout(tf.LiltConfig, tf.LiltModel, dict(pad_token_id=1, max_2d_position_embeddings=64, channel_shrink_ratio=4, hidden_size=48)),
        "bros": layout(tf.BrosConfig, tf.BrosModel, dict(dim_bbox_sinusoid_emb_2d=32, dim_bbox_projection=8), inner=8),
        "layoutlmv3": layout(tf.LayoutLMv3Config, tf.LayoutLMv3Model, dict(visual_embed=False, pad_token_id=1, coordinate_size=6, shape_size=4, max_2d_position_embeddings=64)),
        "luke": encoder(tf.LukeConfig, tf.LukeModel, dict(entity_vocab_size=10, entity_emb_size=16, pad_token_id=1)),
        "tapas": encoder(tf.TapasConfig, tf.TapasModel, dict(type_vocab_sizes=[3, 8, 8, 2, 8, 8, 8])),
        "visual-bert": encoder(tf.VisualBertConfig, tf.VisualBertModel),
        "siglip-text": encoder(tf.SiglipTextConfig, tf.SiglipTextModel, dict(projection_size=W)),
        "blip-text": encoder(tf.BlipTextConfig, tf.BlipTextModel, gelu),
        "altclip-text": encoder(tf.XLMRobertaConfig, tf.XLMRobertaModel, dict(pad_token_id=1, position_embedding_type="absolute")),
    }


def text_decoders():
    past = lambda cls, model, options, heads=K, size=W // H: with_past(cls, model, options, heads, size)
    rope = dict(LLAMA)
    moe = dict(rope, **MOE)
    return {
        "xglm": decoder(tf.XGLMConfig, tf.XGLMForCausalLM, dict(vocab_size=V, d_model=W, ffn_dim=64, num_layers=L, attention_heads=H, max_position_embeddings=64, pad_token_id=0)),
        "biogpt": decoder(tf.BioGptConfig, tf.BioGptForCausalLM, dict(LLAMA)),
        "openai-gpt": decoder(tf.OpenAIGPTConfig, tf.OpenAIGPTLMHeadModel, GPT2),
        "ctrl": decoder(tf.CTRLConfig, tf.CTRLLMHeadModel, dict(GPT2, dff=64)),
        "gpt-neox-japanese": decoder(tf.GPTNeoXJapaneseConfig, tf.GPTNeoXJapaneseForCausalLM, dict(vocab_size=V, hidden_size=W, num_hidden_layers=L, num_attention_heads=H, max_position_embeddings=64)),
        "imagegpt": decoder(tf.ImageGPTConfig, tf.ImageGPTForCausalImageModeling, GPT2),
        "mixtral": decoder(tf.MixtralConfig, tf.MixtralForCausalLM, moe),
        "qwen2-moe": decoder(tf.Qwen2MoeConfig, tf.Qwen2MoeForCausalLM, dict(rope, num_experts=4, num_experts_per_tok=2, moe_intermediate_size=32, shared_expert_intermediate_size=32)),
        "qwen3-moe": decoder(tf.Qwen3MoeConfig, tf.Qwen3MoeForCausalLM, dict(rope, head_dim=8, num_experts=4, num_experts_per_tok=2, moe_intermediate_size=32)),
        "olmoe": decoder(tf.OlmoeConfig, tf.OlmoeForCausalLM, dict(rope, num_experts=4, num_experts_per_tok=2)),
        "olmo3": past(tf.Olmo3Config, tf.Olmo3ForCausalLM, dict(rope, sliding_window=4, layer_types=["sliding_attention", "full_attention"])),
        "deepseek-v2": decoder(tf.DeepseekV2Config, tf.DeepseekV2ForCausalLM, dict(rope, num_key_value_heads=H, kv_lora_rank=8, q_lora_rank=None, qk_rope_head_dim=4, qk_nope_head_dim=8, v_head_dim=8, first_k_dense_replace=L, n_routed_experts=4, moe_intermediate_size=32)),
        "deepseek-v3": decoder(tf.DeepseekV3Config, tf.DeepseekV3ForCausalLM, dict(rope, num_key_value_heads=H, kv_lora_rank=8, q_lora_rank=16, qk_rope_head_dim=4, qk_nope_head_dim=8, v_head_dim=8, first_k_dense_replace=L, n_routed_experts=4, n_group=1, topk_group=1, moe_intermediate_size=32)),
        "minicpm3": decoder(tf.MiniCPM3Config, tf.MiniCPM3ForCausalLM, dict(rope, num_key_value_heads=H, kv_lora_rank=8, q_lora_rank=16, qk_rope_head_dim=4, qk_nope_head_dim=8, v_head_dim=8)),
        "phimoe": decoder(tf.PhimoeConfig, tf.PhimoeForCausalLM, moe),
        "granitemoe": decoder(tf.GraniteMoeConfig, tf.GraniteMoeForCausalLM, moe),
        "helium": past(tf.HeliumConfig, tf.HeliumForCausalLM, dict(rope, head_dim=8)),
        "arcee": past(tf.ArceeConfig, tf.ArceeForCausalLM, rope),
        "seed-oss": past(tf.SeedOssConfig, tf.SeedOssForCausalLM, dict(rope, head_dim=8)),
        "ernie4-5": past(tf.Ernie4_5Config, tf.Ernie4_5ForCausalLM, dict(rope, head_dim=8)),
        "hunyuan": past(tf.HunYuanDenseV1Config, tf.HunYuanDenseV1ForCausalLM, dict(rope, head_dim=8)),
        "lfm2": decoder(tf.Lfm2Config, tf.Lfm2ForCausalLM, dict(rope, layer_types=["conv", "full_attention"], conv_L_cache=3, block_multiple_of=16)),
        "mamba": decoder(tf.MambaConfig, tf.MambaForCausalLM, dict(vocab_size=V, hidden_size=W, state_size=4, num_hidden_layers=L)),
        "diffllama": decoder(tf.DiffLlamaConfig, tf.DiffLlamaForCausalLM, rope),
        "glm4": past(tf.Glm4Config, tf.Glm4ForCausalLM, dict(rope, head_dim=8, partial_rotary_factor=0.5)),
        "apertus": past(tf.ApertusConfig, tf.ApertusForCausalLM, rope),
        "vaultgemma": past(tf.VaultGemmaConfig, tf.VaultGemmaForCausalLM, dict(rope, head_dim=8, sliding_window=4, query_pre_attn_scalar=8)),
        "bitnet": decoder(tf.BitNetConfig, tf.BitNetForCausalLM, rope),
        "dots1": decoder(tf.Dots1Config, tf.Dots1ForCausalLM, dict(rope, first_k_dense_replace=L, head_dim=8)),
        "doge": decoder(tf.DogeConfig, tf.DogeForCausalLM, rope),
        "modernbert-decoder": decoder(tf.ModernBertDecoderConfig, tf.ModernBertDecoderForCausalLM, dict(vocab_size=V, hidden_size=W, num_hidden_layers=L, num_attention_heads=H, intermediate_size=64, max_position_embeddings=64, local_attention=4, global_attn_every_n_layers=2, pad_token_id=0)),
        "llama4": decoder(tf.Llama4TextConfig, tf.Llama4ForCausalLM, dict(rope, head_dim=8, intermediate_size_mlp=64, moe_layers=[], num_local_experts=2, attention_chunk_size=4, layer_types=["chunked_attention", "full_attention"], no_rope_layers=[1, 0])),
        "jais2": past(tf.Jais2Config, tf.Jais2ForCausalLM, rope),
        "cwm": past(tf.CwmConfig, tf.CwmForCausalLM, dict(rope, sliding_window=4, layer_types=["sliding_attention", "full_attention"], rope_parameters=None, head_dim=8)),
        "nanochat": past(tf.NanoChatConfig, tf.NanoChatForCausalLM, dict(rope, head_dim=8)),
        "recurrent-gemma": decoder(tf.RecurrentGemmaConfig, tf.RecurrentGemmaForCausalLM, dict(rope, lru_width=W, attention_window_size=4, block_types=["recurrent", "attention"], num_hidden_layers=2)),
        "youtu": decoder(tf.YoutuConfig, tf.YoutuForCausalLM, dict(rope, num_key_value_heads=H, kv_lora_rank=8, q_lora_rank=16, qk_rope_head_dim=4, qk_nope_head_dim=8, v_head_dim=8)),
        "ministral": past(tf.MinistralConfig, tf.MinistralForCausalLM, dict(rope, head_dim=8, sliding_window=4, layer_types=["sliding_attention", "full_attention"])),
        "falcon-alibi": decoder(tf.FalconConfig, tf.FalconForCausalLM, dict(vocab_size=V, hidden_size=W, num_hidden_layers=L, num_attention_heads=H, multi_query=False, alibi=True, new_decoder_architecture=False)),
        "falcon-new": decoder(tf.FalconConfig, tf.FalconForCausalLM, dict(vocab_size=V, hidden_size=W, num_hidden_layers=L, num_attention_heads=H, num_kv_heads=K, new_decoder_architecture=True, alibi=False)),
        "gpt-neox-past": past(tf.GPTNeoXConfig, tf.GPTNeoXForCausalLM, dict(vocab_size=V, hidden_size=W, num_hidden_layers=L, num_attention_heads=H, intermediate_size=64, max_position_embeddings=64, rotary_pct=0.5), H),
        "opt-past": past(tf.OPTConfig, tf.OPTForCausalLM, dict(vocab_size=V, hidden_size=W, num_hidden_layers=L, num_attention_heads=H, ffn_dim=64, max_position_embeddings=64, word_embed_proj_dim=W), H),
        "phi3-past": past(tf.Phi3Config, tf.Phi3ForCausalLM, rope),
        "gemma2-past": past(tf.Gemma2Config, tf.Gemma2ForCausalLM, dict(rope, head_dim=8, sliding_window=4, query_pre_attn_scalar=8)),
        "starcoder2-past": past(tf.Starcoder2Config, tf.Starcoder2ForCausalLM, dict(rope, sliding_window=4)),
        "gpt-bigcode-past": past(tf.GPTBigCodeConfig, tf.GPTBigCodeForCausalLM, dict(GPT2, multi_query=True), 1),
        "mpt-past": past(tf.MptConfig, tf.MptForCausalLM, dict(vocab_size=V, d_model=W, n_layers=L, n_heads=H, expansion_ratio=2, max_seq_len=64), H),
        "mixtral-past": past(tf.MixtralConfig, tf.MixtralForCausalLM, moe),
    }


def encoder_decoders():
    t5 = dict(vocab_size=V, d_model=W, d_kv=8, d_ff=64, num_layers=L, num_decoder_layers=L, num_heads=H, pad_token_id=0, decoder_start_token_id=0,
              relative_attention_num_buckets=8, relative_attention_max_distance=16)
    prophet = dict(hidden_size=W, num_encoder_layers=L, num_decoder_layers=L, num_encoder_attention_heads=H, num_decoder_attention_heads=H, ngram=2,
                   num_buckets=8, relative_max_distance=16)

    def t5_like(config_class, model_class, extra=None):
        make, names, outputs, axes, inputs, shapes = encoder_decoder(config_class, model_class)

        def make_t5(attention):
            config = config_class(**t5, **(extra or {}))
            config._attn_implementation = attention
            return Wrapped(model_class(config), names, outputs, use_cache=False)
        return make_t5, names, outputs, axes, inputs, shapes

    def speech_to_text(attention):
        config = tf.Speech2TextConfig(vocab_size=V, d_model=W, encoder_layers=L, decoder_layers=L, encoder_attention_heads=H, decoder_attention_heads=H,
                                      encoder_ffn_dim=64, decoder_ffn_dim=64, input_feat_per_channel=8, conv_channels=16, max_source_positions=64,
                                      max_target_positions=64)
        config._attn_implementation = attention
        return Wrapped(tf.Speech2TextForConditionalGeneration(config), ["input_features", "decoder_input_ids"], ["logits"], use_cache=False)

    def moonshine(attention):
        config = tf.MoonshineConfig(vocab_size=V, hidden_size=W, intermediate_size=64, encoder_num_hidden_layers=L, decoder_num_hidden_layers=L,
                                    encoder_num_attention_heads=H, decoder_num_attention_heads=H, max_position_embeddings=64, pad_token_id=0)
        config._attn_implementation = attention
        return Wrapped(tf.MoonshineForConditionalGeneration(config), ["input_values", "decoder_input_ids"], ["logits"], use_cache=False)

    class TrOCR(nn.Module):
        def __init__(self, attention):
            super().__init__()
            config = tf.TrOCRConfig(vocab_size=V, d_model=W, decoder_layers=L, decoder_attention_heads=H, decoder_ffn_dim=64, max_position_embeddings=64,
                                    is_decoder=True, add_cross_attention=True, cross_attention_hidden_size=24, pad_token_id=0)
            config._attn_implementation = attention
            self.model = tf.TrOCRForCausalLM(config)

        def forward(self, input_ids, encoder_hidden_states):
            return (self.model(input_ids=input_ids, encoder_hidden_states=encoder_hidden_states, use_cache=False).logits,)

    return {
        "t5-full": t5_like(tf.T5Config, tf.T5ForConditionalGeneration),
        "mt5": t5_like(tf.MT5Config, tf.MT5ForConditionalGeneration),
        "umt5": t5_like(tf.UMT5Config, tf.UMT5ForConditionalGeneration),
        "longt5": t5_like(tf.LongT5Config, tf.LongT5ForConditionalGeneration, dict(local_radius=3, encoder_attention_type="local")),
        "switch-transformers": t5_like(tf.SwitchTransformersConfig, tf.SwitchTransformersForConditionalGeneration, dict(num_experts=2, num_sparse_encoder_layers=1, num_sparse_decoder_layers=1)),
        "prophetnet": encoder_decoder(tf.ProphetNetConfig, tf.ProphetNetForConditionalGeneration, prophet),
        "plbart": encoder_decoder(tf.PLBartConfig, tf.PLBartForConditionalGeneration),
        "mvp": encoder_decoder(tf.MvpConfig, tf.MvpForConditionalGeneration),
        "blenderbot-small": encoder_decoder(tf.BlenderbotSmallConfig, tf.BlenderbotSmallForConditionalGeneration),
        "pegasus-x": encoder_decoder(tf.PegasusXConfig, tf.PegasusXForConditionalGeneration, dict(num_global_tokens=2, block_size=4, stagger_local_blocks=False)),
        "led": encoder_decoder(tf.LEDConfig, tf.LEDForConditionalGeneration, dict(attention_window=4, max_encoder_position_embeddings=64, max_decoder_position_embeddings=64)),
        "fsmt": encoder_decoder(tf.FSMTConfig, tf.FSMTForConditionalGeneration, dict(langs=["a", "b"], src_vocab_size=V, tgt_vocab_size=V)),
        "nllb-moe": encoder_decoder(tf.NllbMoeConfig, tf.NllbMoeForConditionalGeneration, dict(num_experts=2, encoder_sparse_step=0, decoder_sparse_step=0)),
        "speech-to-text": (speech_to_text, ["input_features", "decoder_input_ids"], ["logits"], {"input_features": {0: "batch", 1: "frames"}, "decoder_input_ids": {0: "batch", 1: "target"}},
                           lambda b, n, t: (torch.randn(b, n, 8), exports.ids(b, t).clamp(3)), [(2, 24, 4), (1, 16, 1), (3, 32, 6)]),
        "moonshine": (moonshine, ["input_values", "decoder_input_ids"], ["logits"], {"input_values": {0: "batch", 1: "samples"}, "decoder_input_ids": {0: "batch", 1: "target"}},
                      lambda b, n, t: (torch.randn(b, n), exports.ids(b, t).clamp(3)), [(2, 2000, 4), (1, 1600, 1), (3, 3000, 6)]),
        "trocr": (TrOCR, ["input_ids", "encoder_hidden_states"], ["logits"], {"input_ids": TEXT, "encoder_hidden_states": {0: "batch", 1: "patches"}},
                  lambda b, s, t: (exports.ids(b, s).clamp(3), torch.randn(b, t, 24)), [(2, 5, 7), (1, 1, 4), (3, 6, 9)]),
    }


def images():
    swin = dict(image_size=32, patch_size=2, embed_dim=16, depths=[2, 2], num_heads=[2, 4], window_size=4)
    return {
        "vit-mae": vision(tf.ViTMAEConfig, tf.ViTMAEModel, dict(IMAGE, mask_ratio=0.0)),
        "vit-msn": vision(tf.ViTMSNConfig, tf.ViTMSNModel, IMAGE),
        "dinov2-registers": vision(tf.Dinov2WithRegistersConfig, tf.Dinov2WithRegistersModel, dict(IMAGE, num_register_tokens=2)),
        "dinov3-vit": vision(tf.DINOv3ViTConfig, tf.DINOv3ViTModel, dict(IMAGE, num_register_tokens=2)),
        "data2vec-vision": vision(tf.Data2VecVisionConfig, tf.Data2VecVisionModel, dict(IMAGE, use_relative_position_bias=True)),
        "swinv2": vision(tf.Swinv2Config, tf.Swinv2Model, swin, size=32),
        "donut-swin": vision(tf.DonutSwinConfig, tf.DonutSwinModel, swin, size=32),
        "cvt": vision(tf.CvtConfig, tf.CvtModel, dict(embed_dim=[16, 32], depth=[1, 1], num_heads=[1, 2], patch_sizes=[7, 3], patch_stride=[4, 2], patch_padding=[2, 1], mlp_ratio=[2.0, 2.0], attention_drop_rate=[0.0, 0.0], drop_rate=[0.0, 0.0], drop_path_rate=[0.0, 0.0], qkv_bias=[True, True], cls_token=[False, True], qkv_projection_method=["dw_bn", "dw_bn"], kernel_qkv=[3, 3], padding_kv=[1, 1], stride_kv=[2, 2], padding_q=[1, 1], stride_q=[1, 1]), size=32),
        "pvt-v2": vision(tf.PvtV2Config, tf.PvtV2Model, dict(image_size=32, num_encoder_blocks=2, depths=[1, 1], sr_ratios=[2, 1], hidden_sizes=[16, 32], patch_sizes=[7, 3], strides=[4, 2], num_attention_heads=[1, 2], mlp_ratios=[2, 2], out_features=None), size=32),
        "poolformer": vision(tf.PoolFormerConfig, tf.PoolFormerModel, dict(num_encoder_blocks=2, depths=[1, 1], hidden_sizes=[16, 32], patch_sizes=[7, 3], strides=[4, 2], padding=[2, 1]), size=32),
        "focalnet": vision(tf.FocalNetConfig, tf.FocalNetModel, dict(image_size=32, patch_size=2, embed_dim=16, hidden_sizes=[16, 32], depths=[1, 1], focal_levels=[2, 2], focal_windows=[3, 3]), size=32),
        "hiera": vision(tf.HieraConfig, tf.HieraModel, dict(image_size=[32, 32], patch_size=[7, 7], patch_stride=[4, 4], patch_padding=[3, 3], embed_dim=16, depths=[1, 1], num_heads=[1, 2], query_stride=[2, 2], num_query_pool=1, masked_unit_size=[4, 4], masked_unit_attention=[True, False]), size=32),
        "levit": vision(tf.LevitConfig, tf.LevitModel, dict(image_size=64, hidden_sizes=[16, 24, 32], num_attention_heads=[2, 2, 2], depths=[1, 1, 1], key_dim=[8, 8, 8], attention_ratio=[2, 2, 2], mlp_ratio=[2, 2, 2]), size=64),
        "dpt": vision(tf.DPTConfig, tf.DPTModel, IMAGE),
        "mobilevitv2": vision(tf.MobileViTV2Config, tf.MobileViTV2Model, dict(image_size=64, width_multiplier=0.25, base_attn_unit_dims=[32, 48, 64], n_attn_blocks=[1, 1, 1]), size=64),
        "swiftformer": vision(tf.SwiftFormerConfig, tf.SwiftFormerModel, dict(image_size=64, depths=[1, 1, 1, 1], embed_dims=[8, 16, 16, 32], mlp_ratio=2), size=64),
        "aimv2-vision": vision(tf.Aimv2VisionConfig, tf.Aimv2VisionModel, IMAGE),
        "vitdet": vision(tf.VitDetConfig, tf.VitDetModel, dict(hidden_size=W, num_hidden_layers=L, num_attention_heads=H, image_size=32, pretrain_image_size=32, patch_size=4, window_size=4, window_block_indices=[0], use_relative_position_embeddings=True), size=32),
        "owlvit-vision": vision(tf.OwlViTVisionConfig, tf.OwlViTVisionModel, IMAGE),
        "chinese-clip-vision": vision(tf.ChineseCLIPVisionConfig, tf.ChineseCLIPVisionModel, IMAGE),
        "blip-vision": vision(tf.BlipVisionConfig, tf.BlipVisionModel, IMAGE),
        "radio-like-vit": vision(tf.ViTConfig, tf.ViTModel, dict(IMAGE, qkv_bias=False)),
        "pixtral-vision": vision(tf.PixtralVisionConfig, tf.PixtralVisionModel, dict(IMAGE)),
        "sam-vision": vision(tf.SamVisionConfig, tf.SamVisionModel, dict(hidden_size=W, num_hidden_layers=L, num_attention_heads=H, image_size=32, patch_size=4, window_size=4, global_attn_indexes=[1], output_channels=16, mlp_dim=64), size=32),
        "vjepa2-like-ijepa": vision(tf.IJepaConfig, tf.IJepaModel, dict(IMAGE, image_size=24), size=24),
    }


def sounds():
    waves = dict(shapes=WAVES, shape=lambda b, n: (b, n))
    features = dict(shapes=[(2, 20), (1, 12), (3, 33)], shape=lambda b, n: (b, n, 16), names=("input_features",))
    conformer = dict(hidden_size=W, num_hidden_layers=L, num_attention_heads=H, intermediate_size=64, conv_depthwise_kernel_size=3)

    def spectrogram(attention):
        config = tf.ASTConfig(**{k: v for k, v in IMAGE.items() if k != "image_size"}, max_length=32, num_mel_bins=16, frequency_stride=4, time_stride=4)
        config._attn_implementation = attention
        return Wrapped(tf.ASTModel(config), ["input_values"], ["last_hidden_state"])

    return {
        "unispeech": speech(tf.UniSpeechConfig, tf.UniSpeechModel, AUDIO, **waves),
        "unispeech-sat": speech(tf.UniSpeechSatConfig, tf.UniSpeechSatModel, AUDIO, **waves),
        "wav2vec2-conformer": speech(tf.Wav2Vec2ConformerConfig, tf.Wav2Vec2ConformerModel, dict(AUDIO, position_embeddings_type="relative", conv_depthwise_kernel_size=3), **waves),
        "wav2vec2-conformer-rotary": speech(tf.Wav2Vec2ConformerConfig, tf.Wav2Vec2ConformerModel, dict(AUDIO, position_embeddings_type="rotary", conv_depthwise_kernel_size=3), **waves),
        "wav2vec2-bert": speech(tf.Wav2Vec2BertConfig, tf.Wav2Vec2BertModel, dict(conformer, feature_projection_input_dim=16, position_embeddings_type="relative_key", left_max_position_embeddings=4, right_max_position_embeddings=2), **features),
        "sew-d": speech(tf.SEWDConfig, tf.SEWDModel, dict(AUDIO, squeeze_factor=2, position_buckets=8, max_position_embeddings=32, share_att_key=True, relative_attention=True, pos_att_type=("p2c", "c2p"), norm_rel_ebd="layer_norm"), shapes=[(2, 128), (1, 160), (3, 192)], shape=lambda b, n: (b, n)),
        "ast": (spectrogram, ["input_values"], ["last_hidden_state"], {"input_values": {0: "batch"}}, lambda b: (torch.randn(b, 32, 16),), [(2,), (1,), (3,)]),
    }


class Towers(nn.Module):
    """Text and image of a contrastive model."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, input_ids, attention_mask, pixel_values):
        output = self.model(input_ids=input_ids, attention_mask=attention_mask, pixel_values=pixel_values)
        return output.logits_per_image, output.text_embeds, output.image_embeds


class Perceiver(nn.Module):
    def __init__(self, attention):
        super().__init__()
        config = tf.PerceiverConfig(num_latents=6, d_latents=W, d_model=W, num_blocks=1, num_self_attends_per_block=L, num_self_attention_heads=H,
                                    num_cross_attention_heads=H, attention_probs_dropout_prob=0.0)
        config._attn_implementation = attention
        self.model = tf.PerceiverModel(config)

    def forward(self, inputs, attention_mask):
        return (self.model(inputs=inputs, attention_mask=attention_mask).last_hidden_state,)


class TorchEncoder(nn.Module):
    """PyTorch's own layers behind an embedding, with a padding mask."""

    def __init__(self, norm_first=False, causal=False):
        super().__init__()
        self.embedding = nn.Embedding(V, W)
        layer = nn.TransformerEncoderLayer(W, H, 64, batch_first=True, norm_first=norm_first, activation="gelu")
        self.layers = nn.TransformerEncoder(layer, L, enable_nested_tensor=False)
        self.causal = causal

    def forward(self, input_ids, attention_mask):
        mask = nn.Transformer.generate_square_subsequent_mask(input_ids.shape[1]) if self.causal else None
        return (self.layers(self.embedding(input_ids), mask=mask, src_key_padding_mask=None if self.causal else attention_mask == 0),)


def others():
    axes = {"input_ids": TEXT, "attention_mask": TEXT, "pixel_values": {0: "images"}}
    text = dict(vocab_size=V, hidden_size=W, num_hidden_layers=L, num_attention_heads=H, intermediate_size=64, max_position_embeddings=64)

    def towers(model_class, config_class, text_config, vision_config, **extra):
        def make(attention):
            config = config_class(text_config=text_config, vision_config=vision_config, **extra)
            config._attn_implementation = attention
            return Towers(model_class(config))
        return (make, ["input_ids", "attention_mask", "pixel_values"], ["logits_per_image", "text_embeds", "image_embeds"], axes,
                lambda b, s, n: (exports.ids(b, s).clamp(3), exports.padded_mask(b, s), torch.randn(n, 3, 16, 16)), [(2, 5, 1), (1, 3, 2), (3, 9, 3)])

    def torch_layers(**options):
        return (lambda attention: TorchEncoder(**options), ["input_ids", "attention_mask"], ["last_hidden_state"],
                {"input_ids": TEXT, "attention_mask": TEXT}, lambda b, s: (exports.ids(b, s), exports.padded_mask(b, s)), TEXT_SHAPES)

    return {
        "clip": towers(tf.CLIPModel, tf.CLIPConfig, dict(text, eos_token_id=98), IMAGE, projection_dim=16),
        "siglip-both": towers(tf.SiglipModel, tf.SiglipConfig, dict(text, projection_size=W), IMAGE),
        "chinese-clip": towers(tf.ChineseCLIPModel, tf.ChineseCLIPConfig, text, IMAGE, projection_dim=16),
        "perceiver": (Perceiver, ["inputs", "attention_mask"], ["last_hidden_state"], {"inputs": TEXT, "attention_mask": TEXT},
                      lambda b, s: (torch.randn(b, s, W), exports.padded_mask(b, s)), TEXT_SHAPES),
        "torch-encoder": torch_layers(),
        "torch-encoder-norm-first": torch_layers(norm_first=True),
        "torch-causal": torch_layers(causal=True),
    }


def more_architectures():
    table = {}
    for family in (text_encoders, text_decoders, encoder_decoders, images, sounds, others):
        table.update(family())
    return table
