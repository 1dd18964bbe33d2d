"""A Whisper as two ONNX graphs with 8-bit weights: the encoder of one window, the decoder of the next token.

Made from the variables of a CTranslate2 model.bin (`read_variables`). The decoder's matrices are kept for MatMulNBits
of ONNX Runtime, blocks of 128 weights with one scale each: its kernels compute a single row, which is what writing one
token after another asks for, at the speed of memory. The encoder has hundreds of rows, for which the kernels of
MatMulIntegerToFloat are twice as fast: one scale for each column of weights, one for each row of what is multiplied, so
that no row hangs on its neighbours. Source of the operators: ONNX Runtime, docs/ContribOperators.md.
"""

from dataclasses import dataclass, field

import numpy as np

from lengua.models.formats.ctranslate2 import has_tied_head

QUANTIZATION_BLOCK_WEIGHTS = 128
"""Weights of the decoder that share a scale."""
UINT8_ZERO_POINT = 128
"""The byte that stands for 0."""
MAX_INT8 = 127
"""The largest number of 8 bits with a sign."""
MIN_ROW_PEAK = 1e-9
"""Stands for the largest number of a row of zeros."""
ACCURACY_LEVEL = 4
"""MatMulNBits' accuracy_level: products of 8-bit numbers, summed exactly."""
OPSET, CONTRIB_DOMAIN, IR_VERSION = 20, "com.microsoft", 10


@dataclass(frozen=True)
class WhisperShape:
    """Of a Whisper, read off its variables."""

    n_mels: int
    width: int
    heads: int
    layers: int
    """Of the decoder."""
    tokens: int

    @property
    def of_head(self) -> int:
        """Numbers in a head."""
        return self.width // self.heads


def shape_of(variables: dict[str, np.ndarray]) -> WhisperShape:
    """Return the sizes of a model."""
    tokens, width = variables["decoder/embeddings/weight"].shape
    n_mels = variables["encoder/conv1/weight"].shape[1]
    return WhisperShape(n_mels, width, int(variables["encoder/num_heads"]), _count_layers(variables, "decoder"), tokens)


def is_convertible(variables: dict[str, np.ndarray]) -> bool:
    """Whether the weights are floats, in blocks that come out even."""
    matrices = [values for name, values in variables.items() if name.endswith("/weight") and values.ndim == 2]
    return all(
        values.dtype in (np.float16, np.float32) and values.shape[1] % QUANTIZATION_BLOCK_WEIGHTS == 0
        for values in matrices
    )


def build_encoder(variables: dict[str, np.ndarray]) -> bytes:
    """Return the graph: features (1, n_mels, frames) -> keys and values of cross-attention, cross_key_0, ...

    Each of them has the shape (1, heads, frames / 2, width / heads).
    """
    shape, graph = shape_of(variables), _Graph(variables, many_rows=True)
    x = graph.op("Gelu", graph.convolution("features", "encoder/conv1", stride=1))
    x = graph.op("Gelu", graph.convolution(x, "encoder/conv2", stride=2))
    x = graph.op("Transpose", x, perm=[0, 2, 1])
    places, length = graph.weights("encoder/position_encodings/encodings"), graph.op("Shape", x, start=1, end=2)
    x = graph.op("Add", x, graph.op("Slice", places, graph.integers(0), length, graph.integers(0)))
    for layer in range(_count_layers(variables, "encoder")):
        name = f"encoder/layer_{layer}"
        query, key, value = graph.projected(graph.normed(x, f"{name}/self_attention"), f"{name}/self_attention", 3)
        [attended] = graph.attention(query, key, value, heads=shape.heads)
        x = graph.op("Add", x, graph.linear(attended, f"{name}/self_attention/linear_1"))
        x = graph.fed_forward(x, name)
    x = graph.normed(x, "encoder")
    for layer in range(shape.layers):
        halves = graph.projected(x, f"decoder/layer_{layer}/attention", 2, "linear_1")
        for kind, half in zip(("key", "value"), halves, strict=True):
            split = graph.op("Reshape", half, graph.integers(0, 0, shape.heads, shape.of_head))
            graph.output(f"cross_{kind}_{layer}", graph.op("Transpose", split, perm=[0, 2, 1, 3]), "FLOAT", 4)
    return graph.bytes({"features": ("FLOAT", [1, shape.n_mels, None])})


def build_decoder(variables: dict[str, np.ndarray]) -> bytes:
    """Return the graph of one step.

    Inputs: tokens (batch, n); pairs, the rows of the batch as matrices are to meet them, one perhaps twice; positions
    (n,); at (m,), the places among the n whose next token is asked for; mask
    (vocabulary,), added to the logits; for each layer past_key_0, past_value_0, ... (batch, heads, before, width /
    heads) and cross_key_0, ... of the encoder.

    Outputs: best (batch, m), the likeliest next token under the mask; logprob (batch, m), its natural logarithm;
    logits (batch, m, vocabulary) without the mask; for each layer key_0, value_0, ...: the past and these n.
    """
    shape, graph = shape_of(variables), _Graph(variables)
    count = graph.op("Shape", "tokens", start=0, end=1)
    words = graph.op("Gather", graph.constant(variables["decoder/embeddings/weight"].astype(np.float16)), "tokens")
    places = graph.op("Gather", graph.weights("decoder/position_encodings/encodings"), "positions")
    x = graph.op("Add", graph.op("Cast", words, to=graph.kind("FLOAT")), places)
    x = graph.op("Gather", x, "pairs", axis=0)
    for layer in range(shape.layers):
        name = f"decoder/layer_{layer}"
        rows = graph.linear(graph.normed(x, f"{name}/self_attention"), f"{name}/self_attention/linear_0")
        query, key, value = graph.parts(graph.first(rows, count), 3)
        past = (f"past_key_{layer}", f"past_value_{layer}")
        attended, keys, values = graph.attention(query, key, value, past=past, heads=shape.heads, unidirectional=1)
        graph.output(f"key_{layer}", keys, "FLOAT", 4)
        graph.output(f"value_{layer}", values, "FLOAT", 4)
        attended = graph.op("Gather", attended, "pairs", axis=0)
        x = graph.op("Add", x, graph.linear(attended, f"{name}/self_attention/linear_1"))
        query = graph.first(graph.linear(graph.normed(x, f"{name}/attention"), f"{name}/attention/linear_0"), count)
        [attended] = graph.attention(query, f"cross_key_{layer}", f"cross_value_{layer}", heads=shape.heads)
        attended = graph.op("Gather", attended, "pairs", axis=0)
        x = graph.op("Add", x, graph.linear(attended, f"{name}/attention/linear_2"))
        x = graph.fed_forward(x, name)
    head = "decoder/embeddings" if has_tied_head(variables) else "decoder/projection"
    logits = graph.linear(graph.op("Gather", graph.normed(x, "decoder"), "at", axis=1), head)
    logits = graph.first(logits, count)
    allowed = graph.op("Add", logits, "mask")
    graph.output("best", graph.op("ArgMax", allowed, axis=2, keepdims=0), "INT64", 2)
    likeliest = graph.op("ReduceMax", graph.op("Softmax", allowed, axis=2), graph.integers(2), keepdims=0)
    graph.output("logprob", graph.op("Log", likeliest), "FLOAT", 2)
    graph.output("logits", logits, "FLOAT", 3)
    inputs = {"tokens": ("INT64", [None, None]), "positions": ("INT64", [None]), "at": ("INT64", [None])}
    inputs |= {"mask": ("FLOAT", [shape.tokens]), "pairs": ("INT64", [None])}
    for layer in range(shape.layers):
        for name in ("past_key", "past_value", "cross_key", "cross_value"):
            inputs[f"{name}_{layer}"] = ("FLOAT", [None, shape.heads, None, shape.of_head])
    return graph.bytes(inputs)


def quantize_blocks(weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return (uint8 of shape (outputs, blocks, BLOCK), float32 scales, one a block) of a matrix (outputs, inputs)."""
    steps, scales = _quantized(weights.astype(np.float32).reshape(len(weights), -1, QUANTIZATION_BLOCK_WEIGHTS))
    return (steps + UINT8_ZERO_POINT).astype(np.uint8), scales.reshape(-1)


def quantize_columns(weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return (int8 of shape (inputs, outputs), float32 scales, one an output) of a matrix (outputs, inputs)."""
    steps, scales = _quantized(weights.astype(np.float32))
    return steps.T.astype(np.int8), scales.reshape(-1)


def _quantized(weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return (whole numbers from -127 to 127, scales) with one scale along the last axis."""
    scales = np.abs(weights).max(axis=-1, keepdims=True) / MAX_INT8
    scales[scales == 0] = 1.0
    return np.rint(weights / scales), scales


def _count_layers(variables: dict[str, np.ndarray], side: str) -> int:
    return sum(name.startswith(f"{side}/layer_") and name.endswith("/ffn/linear_0/bias") for name in variables)


@dataclass
class _Graph:
    """Nodes and weights, as they are added. Names of values go in and come out."""

    variables: dict[str, np.ndarray]
    many_rows: bool = False
    """Whether matrices meet hundreds of rows or a few."""
    nodes: list = field(default_factory=list)
    constants: list = field(default_factory=list)
    outputs: list = field(default_factory=list)

    def kind(self, name: str) -> int:
        from onnx import TensorProto

        return getattr(TensorProto, name)

    def constant(self, values: np.ndarray) -> str:
        from onnx import numpy_helper

        name = f"constant_{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.ascontiguousarray(values), name))
        return name

    def integers(self, *values: int) -> str:
        return self.constant(np.array(values, np.int64))

    def weights(self, name: str) -> str:
        return self.constant(self.variables[name].astype(np.float32))

    def op(self, kind: str, *inputs: str, count: int = 1, domain: str = "", **attributes):
        """Add a node; return the name of what it gives, a list of them where it gives several."""
        from onnx import helper

        names = [f"{kind}_{len(self.nodes)}_{number}" for number in range(count)]
        self.nodes.append(helper.make_node(kind, inputs, names, domain=domain, **attributes))
        return names[0] if count == 1 else names

    def output(self, name: str, value: str, kind: str, rank: int) -> None:
        from onnx import helper

        self.nodes.append(helper.make_node("Identity", [value], [name]))
        self.outputs.append(helper.make_tensor_value_info(name, self.kind(kind), [None] * rank))

    def convolution(self, x: str, name: str, stride: int) -> str:
        weights = self.weights(f"{name}/weight"), self.weights(f"{name}/bias")
        return self.op("Conv", x, *weights, kernel_shape=[3], pads=[1, 1], strides=[stride])

    def linear(self, x: str, name: str) -> str:
        """Multiply by a matrix of 8 bits, and add its bias if it has one."""
        matrix = self.variables[f"{name}/weight"]
        given = self._times_columns(x, matrix) if self.many_rows else self._times_blocks(x, matrix)
        return self.op("Add", given, self.weights(f"{name}/bias")) if f"{name}/bias" in self.variables else given

    def _times_blocks(self, x: str, matrix: np.ndarray) -> str:
        packed, scales = quantize_blocks(matrix)
        sizes = {"N": matrix.shape[0], "K": matrix.shape[1], "bits": 8, "block_size": QUANTIZATION_BLOCK_WEIGHTS}
        inputs = x, self.constant(packed), self.constant(scales)
        return self.op("MatMulNBits", *inputs, domain=CONTRIB_DOMAIN, accuracy_level=ACCURACY_LEVEL, **sizes)

    def _times_columns(self, x: str, matrix: np.ndarray) -> str:
        """Divide each row by its largest number, multiply in whole numbers, and multiply by that again."""
        packed, scales = (self.constant(part) for part in quantize_columns(matrix))
        top = self.op("ReduceMax", self.op("Abs", x), self.integers(-1), keepdims=1)
        top = self.op("Max", top, self.constant(np.float32(MIN_ROW_PEAK)))
        step, zero = self.constant(np.float32(1 / MAX_INT8)), self.constant(np.uint8(UINT8_ZERO_POINT))
        rows = self.op("QuantizeLinear", self.op("Div", x, top), step, zero)
        return self.op(
            "Mul", self.op("MatMulIntegerToFloat", rows, packed, step, scales, zero, domain=CONTRIB_DOMAIN), top
        )

    def projected(self, x: str, name: str, parts: int, matrix: str = "linear_0") -> list[str]:
        """Return the parts of what one matrix gives: query, key and value."""
        return self.parts(self.linear(x, f"{name}/{matrix}"), parts)

    def parts(self, x: str, count: int) -> list[str]:
        """Return so many equal parts."""
        return self.op("Split", x, count=count, axis=2, num_outputs=count)

    def first(self, x: str, count: str) -> str:
        """Return so many rows of the batch, the first ones."""
        return self.op("Slice", x, self.integers(0), count, self.integers(0))

    def normed(self, x: str, name: str) -> str:
        gamma, beta = (self.weights(f"{name}/layer_norm/{part}") for part in ("gamma", "beta"))
        return self.op("LayerNormalization", x, gamma, beta, axis=-1, epsilon=1e-5)

    def attention(
        self, query: str, key: str, value: str, past: tuple[str, str] | None = None, heads: int = 1, **attributes
    ) -> list[str]:
        """Return [what was attended to], and with a past [that, all keys, all values]."""
        before = ("", "", "", *past) if past else ()
        count, more = (3 if past else 1), {"num_heads": heads, **attributes}
        given = self.op("MultiHeadAttention", query, key, value, *before, count=count, domain=CONTRIB_DOMAIN, **more)
        return given if past else [given]

    def fed_forward(self, x: str, name: str) -> str:
        inner = self.op("Gelu", self.linear(self.normed(x, f"{name}/ffn"), f"{name}/ffn/linear_0"))
        return self.op("Add", x, self.linear(inner, f"{name}/ffn/linear_1"))

    def bytes(self, inputs: dict[str, tuple[str, list]]) -> bytes:
        """Return the model, serialised."""
        from onnx import helper

        given = [helper.make_tensor_value_info(name, self.kind(kind), dims) for name, (kind, dims) in inputs.items()]
        graph = helper.make_graph(self.nodes, "whisper", given, self.outputs, self.constants)
        opsets = [helper.make_opsetid("", OPSET), helper.make_opsetid(CONTRIB_DOMAIN, 1)]
        return helper.make_model(graph, opset_imports=opsets, ir_version=IR_VERSION).SerializeToString()
