"""Imported once by the process that ranks of tests are forked from: what each of them would import by itself."""

import torch

from wake2vec.train.waiting import import_all

torch.set_num_threads(1)  # a fork keeps no others
import_all("p2")
import transformers.models.llama.modeling_llama  # noqa: E402, F401

import wake2vec.train.ranks.member  # noqa: E402, F401
