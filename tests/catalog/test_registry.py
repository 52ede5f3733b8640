"""Names: what is found, under which aliases, and what is suggested for what is not."""

from __future__ import annotations

import re

import pytest

import softknee
from softknee.errors import InputError


@pytest.mark.parametrize(
    ("alias", "name"), [("sielu", "gelu_tanh"), ("repu2", "relu2"), ("clamped_swiglu", "swiglu_oai")]
)
def test_aliases_of_papers(alias, name):
    assert softknee.get(alias) is softknee.get(name)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ("SiLU", "activation 'SiLU' is unknown; did you mean 'silu'?"),
        ("GELU", "activation 'GELU' is unknown; did you mean 'gelu'?"),
        ("FATReLU", "activation 'FATReLU' is unknown; did you mean 'fatrelu'?"),
        ("LeakyReLU", "did you mean 'leaky_relu'"),
        ("gelo", "did you mean 'gelu'"),
        ("????", "activation '????' is unknown; see softknee list"),
    ],
)
def test_an_unknown_name(wrong, message):
    with pytest.raises(InputError, match=re.escape(message)):
        softknee.get(wrong)


def test_every_class_name_suggests_its_activation():
    for activation in softknee.activations():
        with pytest.raises(InputError, match="did you mean"):
            softknee.get(activation.class_name)
