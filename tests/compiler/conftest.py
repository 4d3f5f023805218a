"""The zoo: real third-party models, tiny and randomly initialised, with inputs that are ragged."""

import pytest
import torch
import transformers

ATTENTION = {"attn_implementation": "eager"}
TINY = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    **ATTENTION,
}
TINY_TEXT = {"vocab_size": 90, "max_position_embeddings": 40, **TINY}
NO_DROPOUT = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}


def _ids(b=3, t=12, vocab=90):
    return torch.randint(1, vocab, (b, t))


def _ragged(b=3, t=12, left=False):
    mask = torch.ones(b, t, dtype=torch.long)
    mask[0, 5:] = 0
    mask[1, 9:] = 0
    return mask.flip(1) if left else mask


def bert():
    config = transformers.BertConfig(**TINY_TEXT, **NO_DROPOUT)
    model = transformers.BertModel(config, add_pooling_layer=False)
    return model, (_ids(),), {"attention_mask": _ragged()}


def gpt2():
    config = transformers.GPT2Config(
        n_embd=32,
        n_layer=2,
        n_head=4,
        vocab_size=90,
        n_positions=40,
        resid_pdrop=0.0,
        embd_pdrop=0.0,
        attn_pdrop=0.0,
        bos_token_id=0,
        eos_token_id=0,
        use_cache=False,
        **ATTENTION,
    )
    return transformers.GPT2Model(config), (_ids(),), {"attention_mask": _ragged()}


def llama():
    config = transformers.LlamaConfig(**TINY_TEXT, num_key_value_heads=2, use_cache=False)
    return transformers.LlamaModel(config), (_ids(),), {"attention_mask": _ragged()}


def vit():
    config = transformers.ViTConfig(**TINY, **NO_DROPOUT, image_size=16, patch_size=4)
    model = transformers.ViTModel(config, add_pooling_layer=False)
    return model, (torch.randn(3, 3, 16, 16),), {}


def encoder():
    layer = torch.nn.TransformerEncoderLayer(32, 4, 48, dropout=0.0, batch_first=True)
    model = torch.nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
    return model, (torch.randn(3, 12, 32),), {"src_key_padding_mask": _ragged() == 0}


ZOO = {f.__name__: f for f in (bert, gpt2, llama, vit, encoder)}


@pytest.fixture(params=list(ZOO))
def zoo_model(request):
    """`(model in eval mode, args, kwargs)` of each model of the zoo in turn."""
    model, args, kwargs = ZOO[request.param]()
    return model.eval(), args, kwargs


@pytest.fixture
def zoo():
    """The builders by name."""
    return ZOO


def tensor_of(output):
    """The main tensor of what a model returns."""
    return output if isinstance(output, torch.Tensor) else output[0]


@pytest.fixture(name="tensor_of")
def _tensor_of():
    return tensor_of


@pytest.fixture
def compile_eager():
    """Compile with our backend and the eager target, so that no C++ is compiled."""

    def compile(model, *, dynamic=None, fullgraph=False, **options):
        return torch.compile(
            model,
            backend="formwright",
            options={"target": "eager", **options},
            dynamic=dynamic,
            fullgraph=fullgraph,
        )

    return compile
