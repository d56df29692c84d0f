"""KerasHub's models, small and with random weights, and with dropout wherever a constructor takes a rate: `MODELS[name]()`.

`BACKBONES` and `TASKS` are those of KerasHub 0.32.0, under one name each; `LEFT_OUT` are the others, with the reason.
KerasHub is no dependency: `pip install --no-deps keras-hub`, with regex, tokenizers and sentencepiece.
"""

from collections.abc import Callable, Mapping
from typing import Any

import keras
import keras_hub
from keras_hub.src.models.blip2.blip2_custom_opt import BLIP2CustomOPT  # the parts of BLIP-2 and the VAE have no public names
from keras_hub.src.models.blip2.blip2_qformer import BLIP2QFormer
from keras_hub.src.models.blip2.blip2_vision_encoder import BLIP2VisionEncoder
from keras_hub.src.models.vae.vae_backbone import VAEBackbone

M = keras_hub.models
P = keras_hub.layers
RATE = 0.1
WORDS, WIDTH, LAYERS, HEADS = 40, 16, 2, 2
IMAGE, SQUARE = (32, 32, 3), (64, 64, 3)

Builders = dict[str, Callable[[], keras.Model]]


class Made:
    """A part of a model, made anew for each model."""

    def __init__(self, cls: Any, **options: Any):
        self.cls, self.options = cls, options

    def __call__(self) -> Any:
        return self.cls(**{name: value() if isinstance(value, Made) else value for name, value in self.options.items()})


def _backbone(name: str, *shared: Mapping[str, Any], **options: Any) -> dict[str, Made]:
    return {name: Made(getattr(M, name), **{k: v for each in (*shared, options) for k, v in each.items()})}


_ENCODER = {"vocabulary_size": WORDS, "num_layers": LAYERS, "num_heads": HEADS, "hidden_dim": WIDTH, "intermediate_dim": 2 * WIDTH}
_DROPPING = {**_ENCODER, "dropout": RATE}
_SHORT = {"max_sequence_length": 16}
_DECODER = {
    "vocabulary_size": WORDS,
    "num_layers": LAYERS,
    "num_query_heads": HEADS,
    "num_key_value_heads": 1,
    "hidden_dim": WIDTH,
    "intermediate_dim": 2 * WIDTH,
    "dropout": RATE,
}
_EXPERTS = {"moe_intermediate_dim": WIDTH, "num_experts": 2, "top_k": 1}
_LINEAR = {
    "layer_types": ["linear_attention", "full_attention"],
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 2,
    "linear_key_head_dim": 8,
    "linear_value_head_dim": 8,
}
_BOTH_SIDES = {
    f"{side}_{name}": value
    for side in ("encoder", "decoder")
    for name, value in {
        "hidden_dim": WIDTH,
        "intermediate_dim": 2 * WIDTH,
        "num_layers": LAYERS,
        "num_attention_heads": HEADS,
        "num_key_value_heads": 1,
        "head_dim": 8,
        "layer_types": ["full_attention"] * LAYERS,
    }.items()
}

TEXTS: dict[str, Made] = {
    **_backbone("BertBackbone", _DROPPING, _SHORT),
    **_backbone("RobertaBackbone", _DROPPING, _SHORT),
    **_backbone("XLMRobertaBackbone", _DROPPING, _SHORT),
    **_backbone("DistilBertBackbone", _DROPPING, _SHORT),
    **_backbone("AlbertBackbone", _DROPPING, _SHORT, embedding_dim=8),
    **_backbone("DebertaV3Backbone", _DROPPING, _SHORT),
    **_backbone("RoformerV2Backbone", _DROPPING, head_size=8),
    **_backbone("ESMBackbone", _DROPPING, _SHORT),
    **_backbone("XLNetBackbone", _DROPPING),
    **_backbone(
        "FNetBackbone",
        _SHORT,
        vocabulary_size=WORDS,
        num_layers=LAYERS,
        hidden_dim=WIDTH,
        intermediate_dim=2 * WIDTH,
        dropout=RATE,
    ),
    **_backbone(
        "ElectraBackbone",
        _SHORT,
        vocab_size=WORDS,
        num_layers=LAYERS,
        num_heads=HEADS,
        hidden_dim=WIDTH,
        embedding_dim=8,
        intermediate_dim=2 * WIDTH,
        dropout=RATE,
    ),
    **_backbone("GPT2Backbone", _DROPPING, _SHORT),
    **_backbone("OPTBackbone", _DROPPING, _SHORT),
    **_backbone("BloomBackbone", _DROPPING),
    **_backbone("GPTNeoXBackbone", _DROPPING, _SHORT),
    **_backbone("GemmaBackbone", _DECODER, head_dim=8),
    **_backbone("Gemma3Backbone", _DECODER, head_dim=8, image_size=16),
    **_backbone("Gemma4Backbone", _DECODER, head_dim=8, image_size=16),
    **_backbone("LlamaBackbone", _DECODER),
    **_backbone("Llama3Backbone", _DECODER),
    **_backbone("MistralBackbone", _DECODER),
    **_backbone("MixtralBackbone", _DECODER, num_experts=2),
    **_backbone("GptOssBackbone", _DECODER, num_experts=2),
    **_backbone("QwenBackbone", _DECODER),
    **_backbone("QwenMoeBackbone", _DECODER, _EXPERTS, shared_expert_intermediate_dim=WIDTH),
    **_backbone("Qwen3Backbone", _DECODER, head_dim=8),
    **_backbone("Qwen3MoeBackbone", _DECODER, _EXPERTS, head_dim=8),
    **_backbone("Qwen3_5Backbone", _DECODER, _LINEAR, head_dim=8),
    **_backbone(
        "Qwen3_5MoeBackbone",
        {name: value for name, value in _DECODER.items() if name != "intermediate_dim"},
        _EXPERTS,
        _LINEAR,
        head_dim=8,
        shared_expert_intermediate_size=WIDTH,
    ),
    **_backbone("Phi3Backbone", _DECODER),
    **_backbone(
        "FalconBackbone",
        vocabulary_size=WORDS,
        num_layers=LAYERS,
        num_attention_heads=HEADS,
        hidden_dim=WIDTH,
        intermediate_dim=2 * WIDTH,
        attention_dropout_rate=RATE,
        feedforward_dropout_rate=RATE,
    ),
    **_backbone(
        "Gemma3nBackbone",
        text_vocab_size=WORDS,
        text_hidden_size=WIDTH,
        num_hidden_layers=LAYERS,
        pad_token_id=0,
        num_attention_heads=HEADS,
        num_key_value_heads=1,
        head_dim=8,
        intermediate_size=[2 * WIDTH] * LAYERS,
        hidden_activation="gelu_approximate",
        layer_types=["full_attention"] * LAYERS,
        sliding_window=4,
        rope_theta=10000.0,
        max_position_embeddings=16,
        vocab_size_per_layer_input=WORDS,
        hidden_size_per_layer_input=2,
        altup_num_inputs=2,
        laurel_rank=1,
        attention_dropout=RATE,
    ),
    **_backbone(
        "SmolLM3Backbone",
        vocabulary_size=WORDS,
        hidden_dim=WIDTH,
        intermediate_dim=2 * WIDTH,
        num_layers=LAYERS,
        num_attention_heads=HEADS,
        num_key_value_heads=1,
        attention_bias=False,
        attention_dropout=RATE,
        rope_layer_enabled_list=[True] * LAYERS,
        layer_types=["attention"] * LAYERS,
        mlp_bias=False,
        layer_norm_epsilon=1e-5,
        max_position_embeddings=16,
        rope_theta=10000.0,
        partial_rotary_factor=1.0,
    ),
    **_backbone(
        "RWKV7Backbone",
        hidden_size=WIDTH,
        head_size=8,
        num_layers=LAYERS,
        vocabulary_size=WORDS,
        intermediate_dim=2 * WIDTH,
        gate_lora=8,
        mv_lora=8,
        aaa_lora=8,
        decay_lora=8,
        dropout_rate=RATE,
    ),
    **_backbone("T5Backbone", _DROPPING),
    **_backbone("T5GemmaBackbone", _BOTH_SIDES, vocabulary_size=WORDS, dropout_rate=RATE, attention_dropout=RATE),
    **_backbone("T5Gemma2Backbone", _BOTH_SIDES, vocabulary_size=WORDS, dropout_rate=RATE, attention_dropout=RATE),
    **_backbone("BartBackbone", _DROPPING, _SHORT),
    **_backbone(
        "EdRecBackbone",
        vocab_size=WORDS,
        num_layers_enc=LAYERS,
        num_layers_dec=LAYERS,
        hidden_dim=WIDTH,
        intermediate_dim=2 * WIDTH,
        num_heads=HEADS,
        dropout=RATE,
    ),
}

SOUNDS: dict[str, Made] = {
    **_backbone("WhisperBackbone", _DROPPING, num_mels=8, max_encoder_sequence_length=8, max_decoder_sequence_length=8),
    **_backbone(
        "MoonshineBackbone",
        vocabulary_size=WORDS,
        filter_dim=WIDTH,
        encoder_num_layers=LAYERS,
        decoder_num_layers=LAYERS,
        hidden_dim=WIDTH,
        intermediate_dim=2 * WIDTH,
        encoder_num_heads=HEADS,
        decoder_num_heads=HEADS,
        dropout=RATE,
        attention_dropout=RATE,
    ),
}

_PATCHES = {"patch_size": 8, "num_layers": LAYERS, "num_heads": HEADS, "hidden_dim": WIDTH, "image_shape": IMAGE}
_LOOKING = {**_PATCHES, "intermediate_dim": 2 * WIDTH}
_READING = {**_ENCODER, "embedding_dim": WIDTH}
_RESNET = {
    "input_conv_filters": [64],  # no other number: the first block adds its input
    "input_conv_kernel_sizes": [3],
    "block_type": "basic_block",
}

IMAGES: dict[str, Made] = {
    **_backbone(
        "ViTBackbone",
        _PATCHES,
        mlp_dim=2 * WIDTH,
        dropout_rate=RATE,
        attention_dropout=RATE,
        layer_norm_epsilon=1e-6,
        use_mha_bias=True,
        use_mlp_bias=True,
    ),
    **_backbone("DeiTBackbone", _LOOKING, dropout_rate=RATE, attention_dropout=RATE),
    **_backbone("DINOV2Backbone", _LOOKING, dropout_rate=RATE, drop_path_rate=RATE, position_embedding_shape=IMAGE),
    **_backbone("DINOV3Backbone", _LOOKING, attention_dropout=RATE, drop_path_rate=RATE),
    **_backbone(
        "SwinTransformerBackbone",
        image_shape=IMAGE,
        embed_dim=8,
        depths=[2, 2],
        num_heads=[2, 2],
        window_size=4,
        dropout_rate=RATE,
        attention_dropout=RATE,
        drop_path=RATE,
    ),
    **_backbone(
        "MiTBackbone",
        layerwise_depths=[2, 2],
        num_layers=2,
        layerwise_num_heads=[1, 2],
        layerwise_sr_ratios=[8, 4],
        max_drop_path_rate=RATE,
        layerwise_patch_sizes=[7, 3],
        layerwise_strides=[4, 2],
        image_shape=IMAGE,
        hidden_dims=[4, 8],
    ),
    **_backbone(
        "EfficientNetBackbone",
        stackwise_width_coefficients=[0.2] * 2,
        stackwise_depth_coefficients=[1.0] * 2,
        stackwise_squeeze_and_excite_ratios=[0.25] * 2,
        stackwise_kernel_sizes=[3, 3],
        stackwise_num_repeats=[2, 2],
        stackwise_input_filters=[32, 16],
        stackwise_output_filters=[16, 24],
        stackwise_expansion_ratios=[1, 4],
        stackwise_strides=[1, 1],
        stackwise_block_types=["v1", "v1"],
        stackwise_force_input_filters=[0, 0],
        stackwise_nores_option=[False, False],
        dropout=RATE,
        image_shape=IMAGE,
    ),
    **_backbone(
        "ResNetBackbone",
        _RESNET,
        stackwise_num_filters=[64, 64],
        stackwise_num_blocks=[1, 1],
        stackwise_num_strides=[1, 2],
        image_shape=IMAGE,
    ),
    **_backbone("DenseNetBackbone", stackwise_num_repeats=[2, 2], growth_rate=4, image_shape=IMAGE),
    **_backbone("VGGBackbone", stackwise_num_repeats=[1, 1], stackwise_num_filters=[4, 8], image_shape=IMAGE),
    **_backbone(
        "XceptionBackbone",
        stackwise_conv_filters=[[8, 8], [8, 16], [16, 16]],
        stackwise_pooling=[True, True, False],
        image_shape=IMAGE,
    ),
    **_backbone(
        "CSPNetBackbone",
        stem_filters=8,
        stem_kernel_size=3,
        stem_strides=1,
        stackwise_depth=[1, 2],
        stackwise_strides=[1, 2],
        stackwise_num_filters=[8, 16],
        bottle_ratio=(0.5, 1.0),
        block_ratio=(1.0, 0.5),
        expand_ratio=(2.0, 1.0),
        block_type="dark_block",
        stage_type="csp",
        image_shape=IMAGE,
    ),
    **_backbone(
        "MobileNetBackbone",
        stackwise_expansion=[[8, 16], [16, 16]],
        stackwise_num_blocks=[2, 2],
        stackwise_num_filters=[[8, 8], [16, 16]],
        stackwise_kernel_size=[[3, 3], [5, 5]],
        stackwise_num_strides=[[2, 1], [2, 1]],
        stackwise_se_ratio=[[None, None], [0.25, 0.25]],
        stackwise_activation=[["relu", "relu"], ["hard_swish", "hard_swish"]],
        stackwise_padding=[[1, 1], [2, 2]],
        output_num_filters=32,
        depthwise_filters=8,
        depthwise_stride=2,
        depthwise_residual=False,
        last_layer_filter=16,
        squeeze_and_excite=0.5,
        image_shape=IMAGE,
    ),
    **_backbone(
        "MobileNetV5Backbone",
        stackwise_block_types=[["er"], ["uir", "uir"]],
        stackwise_num_blocks=[1, 2],
        stackwise_num_filters=[[8], [16, 16]],
        stackwise_strides=[[2], [2, 1]],
        stackwise_act_layers=[["relu"], ["relu", "relu"]],
        stackwise_exp_ratios=[[4.0], [2.0, 2.0]],
        stackwise_se_ratios=[[0.0], [0.0, 0.0]],
        stackwise_dw_kernel_sizes=[[0], [5, 5]],
        stackwise_dw_start_kernel_sizes=[[0], [0, 0]],
        stackwise_dw_end_kernel_sizes=[[0], [0, 0]],
        stackwise_exp_kernel_sizes=[[3], [0, 0]],
        stackwise_pw_kernel_sizes=[[1], [0, 0]],
        stackwise_num_heads=[[0], [0, 0]],
        stackwise_key_dims=[[0], [0, 0]],
        stackwise_value_dims=[[0], [0, 0]],
        stackwise_kv_strides=[[0], [0, 0]],
        stackwise_use_cpe=[[False], [False, False]],
        use_msfa=False,
        drop_path_rate=RATE,
        image_shape=IMAGE,
    ),
    **_backbone(
        "HGNetV2Backbone",
        depths=[1, 1],
        embedding_size=8,
        hidden_sizes=[16, 32],
        stem_channels=[3, 8, 8],
        hidden_act="relu",
        use_learnable_affine_block=False,
        stackwise_stage_filters=[(8, 8, 16, 1, 1, 3), (16, 8, 32, 1, 1, 3)],
        apply_downsample=[False, True],
        use_lightweight_conv_block=[False, False],
        image_shape=IMAGE,
    ),
    **_backbone(
        "ViTDetBackbone",
        image_shape=IMAGE,
        patch_size=8,
        hidden_size=WIDTH,
        num_layers=LAYERS,
        global_attention_layer_indices=[1],
        intermediate_dim=2 * WIDTH,
        num_heads=HEADS,
        num_output_channels=8,
        window_size=2,
    ),
    **_backbone("CLIPVisionEncoder", _LOOKING),
    **_backbone("SigLIPVisionEncoder", _LOOKING),
    **_backbone("MetaCLIP2VisionEncoder", _LOOKING),
}
IMAGES |= {
    **_backbone("SegFormerBackbone", image_encoder=IMAGES["MiTBackbone"], projection_filters=8),
    **_backbone(
        "DeepLabV3Backbone",
        image_encoder=IMAGES["ResNetBackbone"],
        low_level_feature_key="P2",
        spatial_pyramid_pooling_key="P3",
        upsampling_size=2,
        dilation_rates=[2, 3],
        projection_filters=8,
        image_shape=IMAGE,
    ),
    **_backbone(
        "DepthAnythingBackbone",
        image_encoder=Made(M.DINOV2Backbone, **_LOOKING, dropout_rate=RATE, position_embedding_shape=IMAGE),
        reassemble_factors=[2, 1],
        neck_hidden_dims=[8, 8],
        fusion_hidden_dim=8,
        head_hidden_dim=8,
        head_in_index=-1,
        feature_keys=["stage1", "stage2"],
    ),
    **_backbone(
        "RetinaNetBackbone",
        image_encoder=Made(
            M.ResNetBackbone,
            **_RESNET,
            stackwise_num_filters=[64, 64, 64, 64],
            stackwise_num_blocks=[1, 1, 1, 1],
            stackwise_num_strides=[1, 2, 2, 2],
            image_shape=SQUARE,
        ),
        min_level=3,
        max_level=5,
        use_p5=False,
        image_shape=SQUARE,
    ),
    **_backbone(
        "BASNetBackbone",
        image_encoder=Made(
            M.ResNetBackbone,
            **_RESNET,
            stackwise_num_filters=[64, 128, 256, 512],
            stackwise_num_blocks=[2, 2, 2, 2],
            stackwise_num_strides=[1, 2, 2, 2],
        ),
        num_classes=1,
        image_shape=SQUARE,
    ),
    **_backbone(
        "DFineBackbone",
        backbone=Made(
            M.HGNetV2Backbone,
            stem_channels=[3, 8, 8],
            stackwise_stage_filters=[[8, 8, 16, 1, 3, 3], [16, 8, 32, 1, 3, 3], [32, 8, 64, 1, 3, 5], [64, 16, 128, 1, 3, 5]],
            apply_downsample=[False, True, True, True],
            use_lightweight_conv_block=[False, False, True, True],
            depths=[1, 1, 1, 1],
            hidden_sizes=[16, 32, 64, 128],
            embedding_size=8,
            use_learnable_affine_block=True,
            hidden_act="relu",
            image_shape=(None, None, 3),
            out_features=["stage3", "stage4"],
        ),
        decoder_in_channels=[32, 32],
        encoder_hidden_dim=32,
        num_denoising=0,
        num_labels=4,
        hidden_dim=32,
        learn_initial_query=False,
        num_queries=8,
        anchor_image_size=SQUARE[:2],
        feat_strides=[16, 32],
        num_feature_levels=2,
        encoder_in_channels=[64, 128],
        encode_proj_layers=[1],
        num_attention_heads=4,
        encoder_ffn_dim=32,
        num_encoder_layers=1,
        hidden_expansion=0.5,
        depth_multiplier=0.5,
        eval_idx=-1,
        num_decoder_layers=2,
        decoder_attention_heads=4,
        decoder_ffn_dim=32,
        decoder_n_points=[2, 2],
        lqe_hidden_dim=16,
        num_lqe_layers=2,
        out_features=["stage3", "stage4"],
        image_shape=SQUARE,
        seed=0,
    ),
    **_backbone(
        "PARSeqBackbone",
        image_encoder=Made(
            M.ViTBackbone,
            **_PATCHES,
            mlp_dim=2 * WIDTH,
            use_class_token=False,
            name="encoder",
        ),
        vocabulary_size=WORDS,
        max_label_length=8,
        decoder_hidden_dim=WIDTH,
        num_decoder_layers=1,
        num_decoder_heads=HEADS,
        decoder_mlp_dim=2 * WIDTH,
        dropout_rate=RATE,
        attention_dropout=RATE,
    ),
    **_backbone(
        "VideoPrismBackbone",
        num_frames=2,
        patch_size=8,
        hidden_dim=WIDTH,
        intermediate_dim=2 * WIDTH,
        num_heads=HEADS,
        num_spatial_layers=1,
        num_temporal_layers=1,
        num_auxiliary_layers=0,
        dropout_rate=RATE,
        attention_dropout_rate=RATE,
        image_shape=IMAGE,
    ),
    **_backbone(
        "SAMBackbone",
        image_encoder=IMAGES["ViTDetBackbone"],
        prompt_encoder=Made(
            P.SAMPromptEncoder, hidden_size=8, image_embedding_size=(4, 4), input_image_size=IMAGE[:2], mask_in_channels=16
        ),
        mask_decoder=Made(
            P.SAMMaskDecoder,
            num_layers=2,
            hidden_size=8,
            intermediate_dim=16,
            num_heads=2,
            embedding_dim=8,
            num_multimask_outputs=3,
            iou_head_depth=3,
            iou_head_hidden_dim=8,
        ),
    ),
}

MIXED: dict[str, Made] = {
    **_backbone("CLIPTextEncoder", _READING, _SHORT),
    **_backbone("SigLIPTextEncoder", _READING, max_sequence_length=8, projection_dim=WIDTH),
    **_backbone("MetaCLIP2TextEncoder", _READING, _SHORT),
    **_backbone(
        "PaliGemmaBackbone",
        _DECODER,
        image_size=32,
        head_dim=8,
        vit_patch_size=8,
        vit_num_heads=HEADS,
        vit_hidden_dim=WIDTH,
        vit_num_layers=LAYERS,
        vit_intermediate_dim=2 * WIDTH,
    ),
    **_backbone(
        "BLIP2Backbone",
        vision_encoder=Made(
            BLIP2VisionEncoder,
            image_size=32,
            patch_size=8,
            num_layers=1,
            num_heads=HEADS,
            hidden_dim=WIDTH,
            intermediate_dim=2 * WIDTH,
            use_patch_bias=True,
            use_class_token=True,
            use_mha_bias=True,
            use_mlp_bias=True,
            dropout_rate=RATE,
            layer_norm_epsilon=1e-6,
            initializer_range=0.02,
        ),
        qformer=Made(
            BLIP2QFormer,
            num_query_tokens=4,
            num_layers=LAYERS,
            num_heads=HEADS,
            hidden_dim=WIDTH,
            intermediate_dim=2 * WIDTH,
            vision_dim=WIDTH,
            cross_attention_frequency=2,
            dropout=RATE,
            layer_norm_epsilon=1e-6,
        ),
        language_model=Made(BLIP2CustomOPT, **_DROPPING, num_query_tokens=4, max_sequence_length=32, qformer_hidden_dim=WIDTH),
    ),
    **_backbone(
        "FluxBackbone",
        input_channels=16,
        hidden_size=WIDTH,
        mlp_ratio=2.0,
        num_heads=HEADS,
        depth=1,
        depth_single_blocks=1,
        axes_dim=[2, 2, 4],
        theta=100,
        use_bias=True,
        guidance_embed=True,
        image_shape=(8, 16),
        text_shape=(8, 16),
        image_ids_shape=(8, 3),
        text_ids_shape=(8, 3),
        y_shape=(16,),
    ),
    **_backbone(
        "StableDiffusion3Backbone",
        mmdit_patch_size=2,
        mmdit_hidden_dim=32,
        mmdit_num_layers=2,
        mmdit_num_heads=2,
        mmdit_position_size=16,
        mmdit_qk_norm=None,
        mmdit_dual_attention_indices=None,
        vae=Made(
            VAEBackbone,
            encoder_num_filters=[32, 32, 32, 32],
            encoder_num_blocks=[1, 1, 1, 1],
            decoder_num_filters=[32, 32, 32, 32],
            decoder_num_blocks=[1, 1, 1, 1],
        ),
        clip_l=Made(M.CLIPTextEncoder, **_READING, **_SHORT, intermediate_output_index=0, name="clip_l"),
        clip_g=Made(M.CLIPTextEncoder, **_READING, **_SHORT, intermediate_output_index=0, name="clip_g"),
        image_shape=SQUARE,
    ),
    **_backbone(
        "SAM3PromptableConceptBackbone",
        vision_encoder=Made(
            P.SAM3VisionEncoder,
            image_shape=(56, 56, 3),
            patch_size=14,
            num_layers=2,
            hidden_dim=16,
            intermediate_dim=32,
            num_heads=2,
            fpn_hidden_dim=16,
            fpn_scale_factors=[4.0, 2.0, 1.0, 0.5],
            pretrain_image_shape=(28, 28, 3),
            window_size=2,
            global_attn_indexes=[1],
        ),
        text_encoder=Made(P.SAM3TextEncoder, **_ENCODER, embedding_dim=16),
        geometry_encoder=Made(
            P.SAM3GeometryEncoder, num_layers=1, hidden_dim=16, intermediate_dim=32, num_heads=2, roi_size=3, dropout_rate=RATE
        ),
        detr_encoder=Made(P.SAM3DetrEncoder, num_layers=1, hidden_dim=16, intermediate_dim=32, num_heads=2, dropout_rate=RATE),
        detr_decoder=Made(
            P.SAM3DetrDecoder,
            image_shape=(56, 56, 3),
            patch_size=14,
            num_layers=1,
            hidden_dim=16,
            intermediate_dim=32,
            num_heads=2,
            num_queries=8,
            dropout_rate=RATE,
        ),
        mask_decoder=Made(P.SAM3MaskDecoder, num_upsampling_stages=3, hidden_dim=16, num_heads=2, dropout_rate=RATE),
    ),
}
MIXED |= {
    **_backbone(
        "CLIPBackbone", vision_encoder=IMAGES["CLIPVisionEncoder"], text_encoder=MIXED["CLIPTextEncoder"], projection_dim=8
    ),
    **_backbone("SigLIPBackbone", vision_encoder=IMAGES["SigLIPVisionEncoder"], text_encoder=MIXED["SigLIPTextEncoder"]),
    **_backbone(
        "MetaCLIP2Backbone",
        vision_encoder=IMAGES["MetaCLIP2VisionEncoder"],
        text_encoder=MIXED["MetaCLIP2TextEncoder"],
        projection_dim=8,
    ),
}

BACKBONES: dict[str, Made] = {**TEXTS, **SOUNDS, **IMAGES, **MIXED}


def _task(name: str, **options: Any) -> dict[str, Made]:
    """One task; its backbone is that of its family, the longest with which its name begins."""
    family = max((each for each in BACKBONES if name.startswith(each.removesuffix("Backbone"))), key=len)
    return {name: Made(getattr(M, name), **{"backbone": BACKBONES[family], "preprocessor": None, **options})}


def _tasks(kind: str, families: str, **options: Any) -> dict[str, Made]:
    return {name: made for family in families.split() for name, made in _task(family + kind, **options).items()}


TASKS: dict[str, Made] = {
    **_tasks("TextClassifier", "Bert Roberta XLMRoberta DistilBert Albert DebertaV3 FNet RoformerV2", num_classes=3, dropout=RATE),
    **_task("ESMProteinClassifier", num_classes=3, dropout=RATE),
    **_tasks("MaskedLM", "Bert Roberta XLMRoberta DistilBert Albert DebertaV3 FNet RoformerV2"),
    **_task("ESMMaskedPLM"),
    **_tasks("TextEmbedder", "Bert XLMRoberta Qwen3"),
    **_task("Gemma3TextEmbedder", backbone=Made(M.Gemma3Backbone, **_DECODER, head_dim=8, image_size=16, is_embedding_model=False)),
    **_tasks("CausalLM", "GPT2 OPT Bloom GPTNeoX Gemma Gemma3 Gemma3n Gemma4 Llama Llama3 Mistral Mixtral GptOss Qwen QwenMoe"),
    **_tasks("CausalLM", "Qwen3 Qwen3Moe Qwen3_5 Qwen3_5Moe Phi3 Falcon SmolLM3 RWKV7 PaliGemma BLIP2"),
    **_tasks("Seq2SeqLM", "T5 T5Gemma T5Gemma2 Bart EdRec"),
    **_task("MoonshineAudioToText"),
    **_tasks(
        "ImageClassifier", "ViT ResNet EfficientNet DenseNet VGG MiT SwinTransformer Xception CSPNet", num_classes=3, dropout=RATE
    ),
    **_task("DeiTImageClassifier", num_classes=3, dropout=RATE),
    **_task("HGNetV2ImageClassifier", num_classes=3, dropout=RATE),
    **_task("MobileNetImageClassifier", num_classes=3),
    **_task("MobileNetV5ImageClassifier", num_classes=3, head_hidden_size=16, drop_rate=RATE),
    **_tasks("ImageSegmenter", "SegFormer DeepLabV3", num_classes=3),
    **_tasks("ImageSegmenter", "BASNet SAM SAM3PromptableConcept"),
    **_tasks("ObjectDetector", "RetinaNet DFine", num_classes=4),
    **_task("DepthAnythingDepthEstimator", depth_estimation_type="relative"),
    **_tasks("TextToImage", "Flux StableDiffusion3"),
    **_tasks("ImageToImage", "StableDiffusion3"),
    **_tasks("Inpaint", "StableDiffusion3"),
}

MODELS: dict[str, Made] = {**BACKBONES, **TASKS}

_BASES = "Task CausalLM MaskedLM Seq2SeqLM TextClassifier TextEmbedder ImageClassifier ImageSegmenter ObjectDetector DepthEstimator"
LEFT_OUT = {
    **dict.fromkeys(("Backbone", "FeaturePyramidBackbone"), "a base class"),
    **dict.fromkeys(f"{_BASES} TextToImage ImageToImage Inpaint".split(), "a base class"),
    "PARSeqCausalLM": "its constructor asks its preprocessor for a tokenizer",
    "Gemma4AssistantCausalLM": "it has no keys and values of its own: it only runs beside a Gemma4CausalLM",
}
