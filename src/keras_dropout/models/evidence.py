"""What is known about each mistake that `mistakes` finds: the evidence, its source, and the fix.

Numbers are published ones, or were measured with Keras 3.15.1 on JAX, TensorFlow and torch; the tests measure those again.
"""

from dataclasses import asdict, dataclass
from typing import NamedTuple

from rich.console import Group
from rich.text import Text

from keras_dropout.display import Shown

_MEASURED = "measured with Keras 3.15.1 on JAX, TensorFlow and torch"
_SRIVASTAVA = "Srivastava et al. 2014, JMLR 15:1929-1958"
_KLAMBAUER = "Klambauer et al. 2017, arXiv:1706.02515"

NOTHING = "no known mistake with dropout found"


class Known(NamedTuple):
    """What is known about a mistake."""

    evidence: str
    source: str
    fix: str


@dataclass(frozen=True)
class Mistake:
    """A mistake that was found.

    `rule` is the rule's name in `RULES`, `layer` the layer's name after those of the models around it. `what` was found, with names
    and numbers; `evidence` is what is known about it, published or measured, and `source` where that is from; `mend` is the fix.
    """

    rule: str
    layer: str
    what: str
    evidence: str
    source: str
    mend: str

    def document(self) -> dict[str, str]:
        """Return the mistake as plain values."""
        return asdict(self)

    def __str__(self) -> str:
        return f"{self.rule}: {self.what}\n  {self.evidence}\n  Source: {self.source}\n  Fix: {self.mend}"


class Mistakes(Shown, list[Mistake]):
    """The mistakes found: a list that is shown as its texts."""

    def __rich__(self) -> Group:
        texts = [Text(str(mistake)) for mistake in self]
        for text, mistake in zip(texts, self):
            text.stylize("bold", 0, len(mistake.rule))
        return Group(*texts[:1], *(part for text in texts[1:] for part in (Text(), text)), *([] if texts else [Text(NOTHING)]))

    def __str__(self) -> str:
        return "\n\n".join(map(str, self)) or NOTHING


KNOWN = {
    "dropout-before-batch-normalisation": Known(
        "At prediction the normalisation divides by the larger variance that it saw in training. DenseNet on CIFAR-100: accuracy "
        "77.42 % without dropout, 68.55 % with rate 0.5 in each bottleneck. Wide ResNets suffer less.",
        "Li et al. 2019, CVPR, arXiv:1801.05134",
        "Put the dropout behind the last batch normalisation, or use a smaller rate.",
    ),
    "dropout-before-masking": Known(
        "Dropout changes the values that mark padding. Before Masking(-1), rate 0.5 makes data of all padded steps; before "
        f"Masking(0), it makes padding of each step whose features are all dropped: 12.5 % of those with 3 ({_MEASURED}).",
        "keras/src/layers/core/masking.py",
        "Put the dropout behind Masking, which passes the mask on; compute a mask of your own from what is not dropped.",
    ),
    "dropout-of-ids": Known(
        f"An id is a name and no amount: Dropout(0.5) makes word 3 word 0 or word 6 ({_MEASURED}), and others no word at all.",
        "keras/src/layers/core/embedding.py; Dai and Le 2015, arXiv:1511.01432, replace words by the unknown one",
        "Use keras_dropout.WordDropout on the ids, or put the dropout behind the embedding.",
    ),
    "dropout-after-softmax": Known(
        "What is kept no longer sums to 1. The cross-entropy of an example is 16.1 and has no gradient where its class is "
        f"dropped, and categorical_crossentropy is nan where all classes are ({_MEASURED}).",
        f"keras.losses.categorical_crossentropy; {_SRIVASTAVA}, drop hidden and input units only",
        "Put the dropout before the layer with the softmax.",
    ),
    "dropout-on-logits": Known(
        "No weights follow that could make up for what is dropped: a logit of 0 is a statement about its class, and an output of "
        "0 an error in a regression.",
        f"{_SRIVASTAVA}, drop hidden and input units only",
        "Put the dropout before the output layer.",
    ),
    "elementwise-on-convolution-maps": Known(
        "Neighbours in a map carry the same information, so that what is dropped is still seen. ResNet-50 on ImageNet: accuracy "
        "76.51 % without dropout, 78.13 % with blocks of maps dropped.",
        "Tompson et al. 2015, arXiv:1411.4280; Ghiasi, Lin and Le 2018, arXiv:1810.12890",
        "Use SpatialDropout2D or DropBlock2D there (3D for volumes).",
    ),
    "keras-rate-0": Known(
        f"Made with rate 0 the layer has no seed generator: with a rate set later, training stops in AttributeError ({_MEASURED}).",
        "keras/src/layers/regularization/dropout.py",
        "Use keras_dropout.Dropout(0.0), whose rate can be raised at any time, or leave the layer out.",
    ),
    "alpha-without-selu": Known(
        "Alpha dropout sets units to -1.758, the value at which SELU saturates, and keeps mean 0 and variance 1 only for inputs "
        "that have them, as behind SELU.",
        _KLAMBAUER,
        "Use Dropout there, or make the network a self-normalising one: selu and lecun_normal in every layer.",
    ),
    "selu-with-plain-dropout": Known(
        "A self-normalising network needs the variance to stay 1; dropout with zeros makes it 1 / (1 - rate).",
        _KLAMBAUER,
        "Use AlphaDropout, or FeatureAlphaDropout for whole channels; the paper's rates are 0.05 to 0.1.",
    ),
    "shared-seed": Known(
        "At each step the layers draw the same numbers: the same masks at one shape and rate, at a lower rate a part of what the "
        f"other drops, at a smaller shape the beginning of the other's mask ({_MEASURED}; keras_dropout's layers likewise).",
        "keras/src/random/seed_generator.py",
        "Leave the seeds out and call keras.utils.set_random_seed first, or give each layer a seed of its own.",
    ),
    "neighbouring-seeds": Known(
        "On torch Keras adds the step to the seed: seed s at step k + 1 is seed s + 1 at step k (measured with Keras 3.15.1; not "
        "so on JAX and TensorFlow).",
        "keras/src/backend/torch/random.py",
        "Leave the seeds out and call keras.utils.set_random_seed first, or use keras_dropout's layers, which hash their seeds.",
    ),
    "recurrent-dropout": Known(
        "With any recurrent_dropout Keras takes the steps one by one, in training and at prediction. A user reports 17 minutes "
        "instead of 40 seconds on a GPU (TensorFlow 2.1).",
        "tensorflow/tensorflow#38236; keras/src/layers/rnn/lstm.py",
        "Set it to 0 and put a layer of keras_dropout around: WeightDrop (fused in training too), VariationalRNNDropout or "
        "RecurrentDropout (fused at prediction).",
    ),
    "attention-dropout": Known(
        f"Keras takes its fused attention only where dropout is 0, whether it trains or not ({_MEASURED}).",
        "keras/src/layers/attention/multi_head_attention.py; bayesflow-org/bayesflow#754",
        "Make the layer with dropout=0 and put keras_dropout.AttentionDropout around it (for MultiHeadAttention).",
    ),
    "live-rate": Known(
        "On JAX and TensorFlow a rate set after the first step is ignored until the model is compiled again; on torch it is obeyed "
        "(measured with Keras 3.15.1).",
        "keras-team/keras#8826",
        "Call compile() after setting it; or use keras_dropout's layers and set_rate, which need no compiling.",
    ),
    "training-frozen": Known(
        "In Keras 3 the flag that a functional model is called with overrules the one fixed in it: predict and evaluate give "
        f"training=False, model(x) gives none ({_MEASURED}; loaded models too).",
        "keras/src/models/functional.py; keras-team/keras#18129",
        "Leave training=True out of the graph, and turn dropout on when you sample.",
    ),
    "drops-at-prediction": Known(
        "predict and evaluate give other numbers each time, and no argument turns that off.",
        "keras-team/keras#18129",
        "Pass the layer's own `training` on, and turn dropout on when you sample.",
    ),
    "mc-wrapper-batch-normalisation": Known(
        "A prediction then depends on the other examples in its batch and changes all later ones: 30 calls with training=True "
        f"took a moving mean from 0 to between 0.66 and 0.80 ({_MEASURED}).",
        "keras-team/keras#9412; tensorflow/tensorflow#60640",
        "Turn on the dropout layers only; batch normalisation stays at training=False.",
    ),
    "keep-probability-as-rate": Known(
        "Papers and TensorFlow 1 give the probability to keep, in the original 0.8 for inputs and 0.5 for hidden units.",
        f"{_SRIVASTAVA}; tf.nn.dropout of TensorFlow 1.15: rate = 1 - keep_prob",
        "If the number is what is to be kept, write 1 minus it; else try smaller rates as well: keras_dropout.compare.",
    ),
}

# What `audit` finds by running a model: published models in which it was found, and how to fix it.
AUDITED = {
    "dropout-fails": Known(
        "A rate above 0 then stops training at its first step. DropPath of DINOv2 and DINOv3 in KerasHub 0.32.0 keeps the size of "
        f"the batch from when it was built, which is None ({_MEASURED}).",
        "keras-hub, dinov2_layers.py and dinov3_layers.py",
        "Take the shape of the mask from the input of the call: keras.ops.shape(x).",
    ),
    "dropout-never-called": Known(
        "A layer that is made with a rate and left out of call() changes nothing. Hugging Face's DINOv2 made two drop paths in "
        "each block and called none; TiRex made a Dropout in each residual block and never called it.",
        "huggingface/transformers#29140; NX-AI/tirex#19",
        "Call the layer, or take it and its option out.",
    ),
    "dropout-without-training": Known(
        "A dropout layer that gets training=False passes its input on, in training too.",
        "keras/src/layers/regularization/dropout.py",
        "Pass the training argument of call() on, or leave it out: Keras then passes it on itself.",
    ),
    "dropout-never-drops": Known(
        "DropPath of DINOv2 and DINOv3 in KerasHub 0.32.0 lacks the floor: with rate 0.5 it multiplies each example by a number "
        "between 1 and 3 and never drops it. DALLE2-pytorch drew a mask for its conditions and did not apply it.",
        "keras-hub, dinov2_layers.py and dinov3_layers.py; lucidrains/DALLE2-pytorch#235",
        "Draw whether each unit is kept, multiply by that, and return the product: keras_dropout.StochasticDepth does so.",
    ),
    "dropout-share": Known(
        "What is dropped is then another share than the one that was chosen, or tuned.",
        "tf.nn.dropout of TensorFlow 1.15, whose keep_prob became rate = 1 - keep_prob",
        "Compare what is drawn with the rate: keep where uniform >= rate.",
    ),
    "dropout-mean": Known(
        "The layers behind see other values in training than at prediction: by a factor of 2 at rate 0.5.",
        f"{_SRIVASTAVA}, section 10: the scale is applied once, in training or at prediction",
        "Divide what is kept by 1 - rate in training, and pass the input on at prediction.",
    ),
    "dropout-at-prediction": Known(
        "predict and evaluate then give other numbers each time, or others than the same weights without dropout.",
        "keras-team/keras#18129",
        "Return the input unless training is on; pass the layer's own training argument on.",
    ),
    "dropout-output-unused": Known(
        "In a published EfficientNet the drop connection was called, and its result thrown away.",
        "pytorch/ignite#2072",
        "Use what the layer returns: x = drop(x).",
    ),
    "dropout-option-unused": Known(
        "An option that is not passed on does nothing, and nobody sees it. torchtune's LoRA dropout, RF-DETR's drop path and the "
        "drop connections of the first EfficientNet were never on, whatever their options said.",
        "meta-pytorch/torchtune#996; roboflow/rf-detr PR #762; tensorflow/tpu#381",
        "Pass the option on to the layers that are to drop, or take it out.",
    ),
    "mask-lost": Known(
        "A model that sees what it has to predict looks better than it is. In a version of Keras, attention with dropout above 0 "
        "lost its causal mask.",
        "keras-team/keras#23038, fixed by PR #23040",
        "Apply the mask on the way of the computation that dropout takes too; update Keras.",
    ),
}
