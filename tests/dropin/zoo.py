"""Small models with random weights: each entry of MODELS builds one and its inputs, keyword arguments of a call."""

from __future__ import annotations

import os

import pytest
import torch
import torch.nn.functional as F
from torch import nn

os.environ["HF_HUB_OFFLINE"] = "1"

MODELS = {}
TEXT = {
    "vocab_size": 64,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
}
ROPE = {
    "num_key_value_heads": 2,
    "max_position_embeddings": 32,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}


def model(build):
    MODELS[build.__name__] = build
    return build


def tokens():
    return torch.randint(3, 64, (2, 9))


def images(size=32):
    return torch.randn(2, 3, size, size)


# transformers


def hf(name, config, **inputs):
    """A model class of transformers, attention and experts written out so that their activations can be seen."""
    transformers = pytest.importorskip("transformers")
    transformers.logging.set_verbosity_error()  # about sizes that no real model has
    for part in (config, getattr(config, "text_config", None), getattr(config, "vision_config", None)):
        if part is not None:
            part._attn_implementation = part._experts_implementation = "eager"
            part.initializer_range = part.init_std = 0.2  # what reaches an activation is of size 1
    return getattr(transformers, name)(config), inputs


def _config(name, **settings):
    return getattr(pytest.importorskip("transformers"), name)(**settings)


@model
def bert():
    """gelu; tanh in the pooler."""
    return hf("BertModel", _config("BertConfig", **TEXT), input_ids=tokens())


@model
def gpt2():
    """gelu_new, the tanh form written out."""
    config = _config("GPT2Config", vocab_size=64, n_embd=32, n_layer=2, n_head=4, n_positions=32)
    return hf("GPT2LMHeadModel", config, input_ids=tokens())


@model
def llama():
    """silu in SwiGLU."""
    return hf("LlamaForCausalLM", _config("LlamaConfig", **TEXT, **ROPE), input_ids=tokens())


@model
def gemma2():
    """gelu_pytorch_tanh; soft caps on attention scores and logits."""
    config = _config(
        "Gemma2Config", **TEXT, **ROPE, head_dim=8, attn_logit_softcapping=5.0, final_logit_softcapping=3.0
    )
    return hf("Gemma2ForCausalLM", config, input_ids=tokens())


def _t5(activation):
    config = _config(
        "T5Config", vocab_size=64, d_model=32, d_kv=8, d_ff=48, num_layers=2, num_heads=4, feed_forward_proj=activation,
        decoder_start_token_id=0, pad_token_id=0,
    )  # fmt: skip
    return hf("T5ForConditionalGeneration", config, input_ids=tokens(), decoder_input_ids=tokens())


@model
def t5():
    """relu."""
    return _t5("relu")


@model
def t5_gated():
    """gelu_new, gated."""
    return _t5("gated-gelu")


@model
def clip():
    """quick_gelu, in text and image."""
    text = dict(
        TEXT, max_position_embeddings=16, hidden_act="quick_gelu", eos_token_id=2, bos_token_id=1, pad_token_id=0
    )
    vision = dict(TEXT, image_size=16, patch_size=8, hidden_act="quick_gelu")
    config = _config("CLIPConfig", text_config=text, vision_config=vision, projection_dim=16)
    return hf("CLIPModel", config, input_ids=tokens(), pixel_values=images(16))


@model
def mobilenet_v2():
    """relu6."""
    config = _config("MobileNetV2Config", image_size=32, depth_multiplier=0.25, depth_divisible_by=4, min_depth=4)
    return hf("MobileNetV2ForImageClassification", config, pixel_values=images())


@model
def nemotron():
    """relu2."""
    return hf("NemotronForCausalLM", _config("NemotronConfig", **TEXT, **ROPE, hidden_act="relu2"), input_ids=tokens())


@model
def apertus():
    """xielu, learned."""
    return hf("ApertusForCausalLM", _config("ApertusConfig", **TEXT, **ROPE, hidden_act="xielu"), input_ids=tokens())


@model
def gpt_oss():
    """swiglu_oai in experts; a softmax with a sink, a softmax over experts."""
    config = _config(
        "GptOssConfig", **TEXT, **ROPE, head_dim=8, num_local_experts=4, num_experts_per_tok=2, swiglu_limit=1.0
    )
    return hf("GptOssForCausalLM", config, input_ids=tokens())


@model
def deepseek_v3():
    """silu in SwiGLU, shared and routed; sigmoid for the router's scores."""
    config = _config(
        "DeepseekV3Config", **TEXT, **(ROPE | {"num_key_value_heads": 4}), moe_intermediate_size=16, n_routed_experts=4,
        n_group=2, topk_group=1, num_experts_per_tok=2, q_lora_rank=8, kv_lora_rank=8, qk_rope_head_dim=4,
        qk_nope_head_dim=4, v_head_dim=8, first_k_dense_replace=1,
    )  # fmt: skip
    return hf("DeepseekV3ForCausalLM", config, input_ids=tokens())


@model
def deepseek_v4():
    """swiglu_clamped, sqrt_softplus for the router's scores, sigmoid and softmax between its streams."""
    config = _config(
        "DeepseekV4Config", **TEXT, **(ROPE | {"num_key_value_heads": 1}), head_dim=16, q_lora_rank=8,
        n_routed_experts=4, num_experts_per_tok=2, moe_intermediate_size=16, o_groups=2, o_lora_rank=8, index_n_heads=2,
        index_head_dim=16, index_topk=4, sliding_window=8, hc_mult=2, swiglu_limit=1.0,
    )  # fmt: skip
    return hf("DeepseekV4ForCausalLM", config, input_ids=tokens())


@model
def modernbert():
    """geglu, packed."""
    config = _config(
        "ModernBertConfig", **TEXT, max_position_embeddings=32, pad_token_id=0, bos_token_id=1, eos_token_id=2,
        cls_token_id=1, sep_token_id=2,
    )  # fmt: skip
    return hf("ModernBertForMaskedLM", config, input_ids=tokens())


@model
def efficientnet():
    """swish; sigmoid in squeeze and excitation."""
    config = _config(
        "EfficientNetConfig", image_size=32, width_coefficient=0.25, depth_coefficient=0.25, hidden_dim=320,
        in_channels=[32, 16, 24], out_channels=[16, 24, 40], kernel_sizes=[3, 3, 5], strides=[1, 2, 2],
        num_block_repeats=[1, 1, 1], expand_ratios=[1, 6, 6], depthwise_padding=[], num_labels=4,
    )  # fmt: skip
    return hf("EfficientNetForImageClassification", config, pixel_values=images())


@model
def opt():
    """relu."""
    config = _config(
        "OPTConfig", vocab_size=64, hidden_size=32, ffn_dim=48, num_hidden_layers=2, num_attention_heads=4,
        max_position_embeddings=32, word_embed_proj_dim=32,
    )  # fmt: skip
    return hf("OPTForCausalLM", config, input_ids=tokens())


@model
def vit():
    """gelu."""
    settings = {k: v for k, v in TEXT.items() if k != "vocab_size"}
    config = _config("ViTConfig", **settings, image_size=16, patch_size=8)
    return hf("ViTForImageClassification", config, pixel_values=images(16))


@model
def wav2vec2_conformer():
    """gelu on the sound, swish and glu in the conformer."""
    config = _config(
        "Wav2Vec2ConformerConfig", **TEXT, hidden_act="swish", conv_dim=(16, 16), conv_stride=(5, 2),
        conv_kernel=(10, 3), num_conv_pos_embeddings=8, num_conv_pos_embedding_groups=2, conv_depthwise_kernel_size=7,
        position_embeddings_type=None, apply_spec_augment=False,
    )  # fmt: skip
    return hf("Wav2Vec2ConformerModel", config, input_values=torch.randn(2, 200))


# Written by hand


class Plain(nn.Module):
    """Modules one after the other, and functions between them."""

    def __init__(self, *steps):
        super().__init__()
        self.parts = nn.ModuleList(step for step in steps if isinstance(step, nn.Module))
        self.steps = [None if isinstance(step, nn.Module) else step for step in steps]

    def forward(self, x):
        parts = iter(self.parts)
        for step in self.steps:
            x = next(parts)(x) if step is None else step(x)
        return x


class Block(nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.first, self.second = (nn.Conv2d(channels, channels, 3, padding=1, bias=False) for _ in range(2))
        self.norms = nn.ModuleList(nn.BatchNorm2d(channels) for _ in range(2))
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x):
        y = self.norms[1](self.second(self.relu(self.norms[0](self.first(x)))))
        return self.relu(y + x)


@model
def resnet():
    """relu in place."""
    head = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 5), nn.LogSoftmax(-1)]
    return Plain(nn.Conv2d(3, 8, 3), torch.relu_, Block(8), Block(8), *head), {"x": images(12)}


class UNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.down = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.PReLU(8), nn.Conv2d(8, 8, 3, 2, 1))
        self.middle = nn.Sequential(nn.LeakyReLU(0.1, inplace=True), nn.Conv2d(8, 8, 3, padding=1), nn.PReLU())
        self.up, self.out = nn.ConvTranspose2d(8, 8, 2, 2), nn.Conv2d(16, 2, 1)

    def forward(self, x):
        low = self.down(x)
        back = F.leaky_relu(self.up(self.middle(low)), 0.2)
        skip = F.rrelu(self.down[1](self.down[0](x)), training=False)
        return F.softmax(self.out(torch.cat([back, skip], 1)), dim=1)


@model
def unet():
    """leaky_relu, prelu per channel and for all, rrelu outside training, softmax over channels."""
    return UNet(), {"x": images(8)}


@model
def dcgan():
    """leaky_relu and tanh in the generator, sigmoid at the discriminator's end."""
    generator = [
        nn.ConvTranspose2d(6, 8, 4),
        nn.BatchNorm2d(8),
        nn.LeakyReLU(0.2),
        nn.ConvTranspose2d(8, 3, 4, 2, 1),
        nn.Tanh(),
    ]
    judge = [nn.Conv2d(3, 8, 4, 2, 1), nn.LeakyReLU(0.2, inplace=True), nn.Conv2d(8, 1, 4), nn.Sigmoid()]
    return Plain(*generator, *judge), {"x": torch.randn(3, 6, 1, 1)}


@model
def self_normalizing():
    """selu, six layers deep, and alpha dropout."""
    layers = [part for _ in range(6) for part in (nn.Linear(16, 16), nn.SELU(), nn.AlphaDropout(0.05))]
    return Plain(*layers, nn.Linear(16, 4)), {"x": torch.randn(5, 16)}


class Recurrent(nn.Module):
    """An LSTM written out: gates by Tensor methods."""

    def __init__(self):
        super().__init__()
        self.gates, self.out = nn.Linear(8 + 12, 4 * 12), nn.Linear(12, 3)

    def forward(self, x):
        h, c = x.new_zeros(2, len(x), 12)
        for step in x.unbind(1):
            forget, enter, leave, new = self.gates(torch.cat([step, h], -1)).chunk(4, -1)
            c = torch.sigmoid(forget) * c + enter.sigmoid() * new.tanh()
            h = F.sigmoid(leave) * torch.tanh(c)
        return F.logsigmoid(self.out(h))


@model
def lstm():
    """sigmoid and tanh as gates, logsigmoid."""
    return Recurrent(), {"x": torch.randn(3, 7, 8)}


@model
def gated_blocks():
    """glu, and the gated forms with relu, gelu and silu written out."""

    def halves(act):
        def gate(x):
            a, b = x.chunk(2, -1)
            return act(a) * b

        return gate

    acts = [nn.GLU(-1), halves(F.relu), halves(F.gelu), halves(F.silu), lambda x: F.glu(x, dim=1)]
    layers = [part for act in acts[:4] for part in (nn.Linear(16, 32), act)]
    return Plain(*layers, nn.LayerNorm(16), acts[4]), {"x": torch.randn(2, 6, 16)}


class VAE(nn.Module):
    def __init__(self):
        super().__init__()
        self.encode = nn.Sequential(nn.Linear(16, 24), nn.ELU(), nn.Linear(24, 24), nn.CELU(0.5), nn.Linear(24, 8))
        self.decode = nn.Sequential(nn.Linear(4, 24), nn.ELU(0.5, inplace=True), nn.Linear(24, 16), nn.Softsign())
        self.noise = nn.Buffer(torch.randn(5, 4))

    def forward(self, x):
        mean, scale = self.encode(x).chunk(2, -1)
        return self.decode(mean + F.softplus(scale) * self.noise), F.softplus(mean, beta=2.0)


@model
def vae():
    """elu, celu, softplus for the scale, softsign."""
    return VAE(), {"x": torch.randn(5, 16)}


class Squeeze(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(
            nn.AdaptiveAvgPool2d(1), nn.Conv2d(8, 4, 1), nn.ReLU(), nn.Conv2d(4, 8, 1), nn.Hardsigmoid()
        )

    def forward(self, x):
        return x * self.layers(x)


@model
def mobilenet_v3():
    """hardswish, hardsigmoid in squeeze and excitation, hardtanh."""
    layers = [
        nn.Conv2d(3, 8, 3, 2),
        nn.BatchNorm2d(8),
        nn.Hardswish(inplace=True),
        Squeeze(),
        nn.Conv2d(8, 8, 3),
        F.hardswish,
    ]
    return Plain(*layers, nn.Flatten(), nn.Linear(200, 4), nn.Hardtanh()), {"x": images(16)}


@model
def yolo():
    """mish, silu, and softmax over anchors."""
    layers = [
        nn.Conv2d(3, 8, 3),
        nn.BatchNorm2d(8),
        nn.Mish(),
        nn.Conv2d(8, 8, 3, 2),
        nn.SiLU(inplace=True),
        nn.Conv2d(8, 6, 1),
        nn.Mish(),
    ]
    return Plain(*layers, nn.Softmax2d()), {"x": images(10)}


class ISTA(nn.Module):
    """Sparse coding unrolled."""

    def __init__(self):
        super().__init__()
        self.into, self.lateral, self.out = nn.Linear(12, 20), nn.Linear(20, 20, bias=False), nn.Linear(20, 12)

    def forward(self, x):
        z = F.softshrink(self.into(x), 0.1)
        for _ in range(3):
            z = F.softshrink(self.into(x) + self.lateral(z), 0.1)
        return F.tanhshrink(self.out(F.hardshrink(z, 0.05)))


@model
def sparse_coding():
    """softshrink, hardshrink, tanhshrink."""
    return ISTA(), {"x": torch.randn(4, 12)}


class Sparsemax(nn.Module):
    """By sorting, with the largest support whose entries stay positive."""

    def forward(self, x):
        falling = x.sort(-1, descending=True).values
        over = (falling.cumsum(-1) - 1) / torch.arange(1, x.shape[-1] + 1, device=x.device)
        size = (falling > over).sum(-1, keepdim=True)
        return (x - over.gather(-1, size - 1)).clamp(min=0)


class Attention(nn.Module):
    def __init__(self, weigh, act):
        super().__init__()
        self.project, self.weigh = nn.Linear(16, 48), weigh
        self.feed = nn.Sequential(nn.LayerNorm(16), nn.Linear(16, 32), act, nn.Linear(32, 16))

    def forward(self, x):
        query, key, value = self.project(x).chunk(3, -1)
        y = x + self.weigh(2 * query @ key.transpose(-1, -2)) @ value
        return y + self.feed(y)


@model
def sparse_attention():
    """sparsemax of the scores; the tanh form of gelu."""
    return Plain(*(Attention(Sparsemax(), nn.GELU("tanh")) for _ in range(2))), {"x": torch.randn(2, 7, 16)}


@model
def mega():
    """laplace of the scores, as MEGA has it; gelu_accurate, the tanh form written out."""
    act = pytest.importorskip("transformers.activations").ACT2FN
    layers = (Attention(act["laplace"], act["gelu_accurate"]) for _ in range(2))
    return Plain(*layers), {"x": torch.randn(2, 7, 16)}
