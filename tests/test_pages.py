"What pages take from the lessons: the glossary holds every term that the course promises, each introduced once."
import json, re
from collections import Counter

import pytest
import pages
from project import top

WANTED = """
tensor, activation function, nonlinearity, ReLU, fully connected layer, affine map, vectorization, contraction, contiguous, view, copy, reduction, stride,
broadcasting, elementwise, rank, scalar, batch, dot product, matrix product, neuron, hidden layer, loss function, residual, mean squared error,
residual connection, hyperparameter, fan-in, fan-out, gain, initialization, vanishing gradients, exploding gradients, dead unit, computational graph,
forward pass, backward pass, backpropagation, chain rule, gradient, Jacobian, reverse mode, forward mode, vector-Jacobian product,
Jacobian-vector product, leaf, saved tensors, gradient checking, subgradient, module, parameter, training set, validation set, test set, mini-batch,
batch size, epoch, iteration, stochastic gradient descent, learning rate, schedule, momentum, weight decay, regularization, overfitting,
generalization, generalization gap, logits, softmax, log-sum-exp, cross-entropy, softmax regression, one-hot, inference, data augmentation, kernel,
channel, feature map, receptive field, padding, dilation, pooling, im2col, transposed convolution, polyphase decomposition, tape, topological order
""".replace("\n", " ").strip()

introduced = list(pages.terms())
names = [term.name.lower() for term in introduced]


@pytest.mark.parametrize("name", re.split(r",\s+", WANTED))
def test_every_term_is_introduced(name): assert name.lower() in names, f"no lesson introduces **{name}**<!-- term -->"


def test_every_term_is_introduced_once():
    assert not [name for name, times in Counter(names).items() if times > 1 and name != "stride"] # of memory, and of a convolution


@pytest.mark.parametrize("term", introduced, ids=lambda term: term.name)
def test_its_sentence_stands_alone(term):
    assert term.name in term.sentence and len(term.sentence) > 30 and "<!--" not in term.sentence
    assert term.sentence[0].isupper() or term.sentence.startswith(term.name)
    assert term.sentence.endswith((".", ":", ".)")) and term.section
    assert term.sentence.split()[0] not in {"It", "This", "That", "These", "They", "Both", "Such", "So", "But", "And", "Because"}


def test_terms_are_found_where_they_stand(tmp_path, monkeypatch):
    (tmp_path/"nbs").mkdir()
    text = "# One\nFirst. **A claim, not a term.** (See it.) A **tape**<!-- term --> is short, e.g. 1.5 m. The end.\n\n## Two\n> - A **leaf**<!-- term --> falls:\nA|b"
    cells = [{"cell_type": "markdown", "id": "0", "metadata": {}, "source": text}]
    (tmp_path/"nbs"/"07_x.ipynb").write_text(json.dumps({"cells": cells, "metadata": {}, "nbformat": 4, "nbformat_minor": 5}))
    monkeypatch.setattr(pages, "lessons", lambda: [tmp_path/"nbs"/"07_x.ipynb"])
    assert [term[:2] + term[3:] for term in pages.terms()] == [("tape", "A tape is short, e.g. 1.5 m.", "One"), ("leaf", "A leaf falls:", "Two")]
    *_, leaf, tape = pages.glossary().splitlines()
    assert leaf == "| Leaf | A leaf falls: | [7](07_x.ipynb), Two |" and tape.startswith("| Tape | A tape")


def test_the_glossary_holds_them_all():
    text = (top/"nbs"/"94_glossary.ipynb").read_text(encoding="utf-8")
    for term in introduced: assert json.dumps(f"| {term.name[0].upper()}{term.name[1:]} | ", ensure_ascii=False)[1:-1] in text
