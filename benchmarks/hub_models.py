"""KerasHub's models, small and with random weights, and with dropout wherever a constructor takes a rate: `MODELS[name]()`.

KerasHub is no dependency: `pip install --no-deps keras-hub`, with regex, tokenizers and sentencepiece.
"""

from collections.abc import Callable
from typing import Any

import keras
import keras_hub

M = keras_hub.models
RATE = 0.1
WORDS, WIDTH, LAYERS, HEADS = 40, 16, 2, 2
IMAGE = (32, 32, 3)
_ENCODER = {"vocabulary_size": WORDS, "num_layers": LAYERS, "num_heads": HEADS, "hidden_dim": WIDTH, "intermediate_dim": 2 * WIDTH}
_DECODER = {
    "vocabulary_size": WORDS,
    "num_layers": LAYERS,
    "num_query_heads": HEADS,
    "num_key_value_heads": 1,
    "hidden_dim": WIDTH,
    "intermediate_dim": 2 * WIDTH,
}
_SHORT = {"max_sequence_length": 16}
_VISION = {"patch_size": 8, "num_layers": LAYERS, "num_heads": HEADS, "hidden_dim": WIDTH, "image_shape": IMAGE}

Builders = dict[str, Callable[[], keras.Model]]


def _encoder(name: str, **options: Any) -> Callable[[], Any]:
    return lambda: getattr(M, name)(**{**_ENCODER, "dropout": RATE, **options})


def _decoder(name: str, **options: Any) -> Callable[[], Any]:
    return lambda: getattr(M, name)(**{**_DECODER, "dropout": RATE, **options})


ENCODERS: Builders = {
    "BertBackbone": _encoder("BertBackbone", **_SHORT),
    "RobertaBackbone": _encoder("RobertaBackbone", **_SHORT),
    "XLMRobertaBackbone": _encoder("XLMRobertaBackbone", **_SHORT),
    "DistilBertBackbone": _encoder("DistilBertBackbone", **_SHORT),
    "AlbertBackbone": _encoder("AlbertBackbone", embedding_dim=8, **_SHORT),
    "DebertaV3Backbone": _encoder("DebertaV3Backbone", **_SHORT),
    "RoformerV2Backbone": _encoder("RoformerV2Backbone", head_size=8),
    "ESMBackbone": _encoder("ESMBackbone", **_SHORT),
    "XLNetBackbone": _encoder("XLNetBackbone"),
    "FNetBackbone": lambda: M.FNetBackbone(
        vocabulary_size=WORDS, num_layers=LAYERS, hidden_dim=WIDTH, intermediate_dim=2 * WIDTH, dropout=RATE, **_SHORT
    ),
    "ElectraBackbone": lambda: M.ElectraBackbone(
        vocab_size=WORDS,
        num_layers=LAYERS,
        num_heads=HEADS,
        hidden_dim=WIDTH,
        embedding_dim=8,
        intermediate_dim=2 * WIDTH,
        dropout=RATE,
        **_SHORT,
    ),
}

DECODERS: Builders = {
    "GPT2Backbone": _encoder("GPT2Backbone", **_SHORT),
    "OPTBackbone": _encoder("OPTBackbone", **_SHORT),
    "BloomBackbone": _encoder("BloomBackbone"),
    "GPTNeoXBackbone": _encoder("GPTNeoXBackbone", **_SHORT),
    "GemmaBackbone": _decoder("GemmaBackbone", head_dim=8),
    "LlamaBackbone": _decoder("LlamaBackbone"),
    "Llama3Backbone": _decoder("Llama3Backbone"),
    "MistralBackbone": _decoder("MistralBackbone"),
    "QwenBackbone": _decoder("QwenBackbone"),
    "Phi3Backbone": _decoder("Phi3Backbone"),
    "FalconBackbone": lambda: M.FalconBackbone(
        vocabulary_size=WORDS,
        num_layers=LAYERS,
        num_attention_heads=HEADS,
        hidden_dim=WIDTH,
        intermediate_dim=2 * WIDTH,
        attention_dropout_rate=RATE,
        feedforward_dropout_rate=RATE,
    ),
}

SEQUENCES: Builders = {
    "T5Backbone": _encoder("T5Backbone"),
    "BartBackbone": _encoder("BartBackbone", **_SHORT),
    "WhisperBackbone": _encoder("WhisperBackbone", num_mels=8, max_encoder_sequence_length=8, max_decoder_sequence_length=8),
    "MoonshineBackbone": lambda: M.MoonshineBackbone(
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

IMAGES: Builders = {
    "ViTBackbone": lambda: M.ViTBackbone(
        **_VISION,
        mlp_dim=2 * WIDTH,
        dropout_rate=RATE,
        attention_dropout=RATE,
        layer_norm_epsilon=1e-6,
        use_mha_bias=True,
        use_mlp_bias=True,
    ),
    "DeiTBackbone": lambda: M.DeiTBackbone(**_VISION, intermediate_dim=2 * WIDTH, dropout_rate=RATE, attention_dropout=RATE),
    "DINOV2Backbone": lambda: M.DINOV2Backbone(
        **_VISION, intermediate_dim=2 * WIDTH, dropout_rate=RATE, drop_path_rate=RATE, position_embedding_shape=IMAGE
    ),
    "DINOV3Backbone": lambda: M.DINOV3Backbone(**_VISION, intermediate_dim=2 * WIDTH, attention_dropout=RATE, drop_path_rate=RATE),
    "SwinTransformerBackbone": lambda: M.SwinTransformerBackbone(
        image_shape=IMAGE,
        embed_dim=8,
        depths=[2, 2],
        num_heads=[2, 2],
        window_size=4,
        dropout_rate=RATE,
        attention_dropout=RATE,
        drop_path=RATE,
    ),
    "MiTBackbone": lambda: M.MiTBackbone(
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
    "EfficientNetBackbone": lambda: M.EfficientNetBackbone(
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
    "ResNetBackbone": lambda: M.ResNetBackbone(
        input_conv_filters=[64],
        input_conv_kernel_sizes=[3],
        stackwise_num_filters=[64, 64],  # the first cannot be another number
        stackwise_num_blocks=[1, 1],
        stackwise_num_strides=[1, 2],
        block_type="basic_block",
        image_shape=IMAGE,
    ),
    "DenseNetBackbone": lambda: M.DenseNetBackbone(stackwise_num_repeats=[2, 2], growth_rate=4, image_shape=IMAGE),
    "VGGBackbone": lambda: M.VGGBackbone(stackwise_num_repeats=[1, 1], stackwise_num_filters=[4, 8], image_shape=IMAGE),
    "SegFormerBackbone": lambda: M.SegFormerBackbone(image_encoder=IMAGES["MiTBackbone"](), projection_filters=8),
}


def _text_task(name: str, backbone: str, **options: Any) -> Callable[[], Any]:
    return lambda: getattr(M, name)(backbone={**ENCODERS, **DECODERS, **SEQUENCES}[backbone](), preprocessor=None, **options)


def _image_task(name: str, backbone: str, **options: Any) -> Callable[[], Any]:
    return lambda: getattr(M, name)(backbone=IMAGES[backbone](), preprocessor=None, num_classes=3, **options)


TASKS: Builders = {
    **{
        f"{family}TextClassifier": _text_task(f"{family}TextClassifier", f"{family}Backbone", num_classes=3, dropout=RATE)
        for family in ("Bert", "Roberta", "XLMRoberta", "DistilBert", "Albert", "DebertaV3", "FNet", "RoformerV2")
    },
    **{
        f"{family}MaskedLM": _text_task(f"{family}MaskedLM", f"{family}Backbone")
        for family in ("Bert", "Roberta", "DistilBert", "Albert", "DebertaV3", "FNet")
    },
    **{
        f"{family}CausalLM": _text_task(f"{family}CausalLM", f"{family}Backbone")
        for family in ("GPT2", "OPT", "Bloom", "GPTNeoX", "Gemma", "Llama", "Llama3", "Mistral", "Qwen", "Phi3", "Falcon")
    },
    "BartSeq2SeqLM": _text_task("BartSeq2SeqLM", "BartBackbone"),
    "ViTImageClassifier": _image_task("ViTImageClassifier", "ViTBackbone", dropout=RATE),
    "DeiTImageClassifier": _image_task("DeiTImageClassifier", "DeiTBackbone", dropout=RATE),
    "ResNetImageClassifier": _image_task("ResNetImageClassifier", "ResNetBackbone", dropout=RATE),
    "EfficientNetImageClassifier": _image_task("EfficientNetImageClassifier", "EfficientNetBackbone", dropout=RATE),
    "DenseNetImageClassifier": _image_task("DenseNetImageClassifier", "DenseNetBackbone", dropout=RATE),
    "VGGImageClassifier": _image_task("VGGImageClassifier", "VGGBackbone", dropout=RATE),
    "MiTImageClassifier": _image_task("MiTImageClassifier", "MiTBackbone", dropout=RATE),
    "SwinTransformerImageClassifier": _image_task("SwinTransformerImageClassifier", "SwinTransformerBackbone", dropout=RATE),
}

MODELS: Builders = {**ENCODERS, **DECODERS, **SEQUENCES, **IMAGES, **TASKS}
