"""The weights of linear layers, rearranged once into the blocks that the CPU's bfloat16 kernels read.

Without that, oneDNN rearranges them in every call, which takes as long as the multiplication where a step has few rows.
"""

import logging
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from workers.engines.shared.resources import available_memory_bytes
from workers.engines.transformers.forward.fused_projections import is_hooked
from workers.engines.transformers.loading.model import LoadedModel
from workers.engines.transformers.loading.params import ModelKind
from workers.engines.transformers.loading.self_check import difference

_ROWS = 16  # of a multiplication, which the layout is chosen for; it is as good for 1 and for 512
_TRIAL_TOKENS = 8
_DIFFERENCE = 0.02  # of the logits' norm: another order of sums stays below
_MEMORY_SHARE = 0.9  # for a moment both layouts are held

logger = logging.getLogger(__name__)


class PackedLinear(nn.Linear):
    """A linear layer whose weights lie in blocks; bfloat16, for inference. `weight` may be without data.

    The operators are private (`torch.ops.mkldnn`): the public `torch.utils.mkldnn` converts every input and output too.
    torch is pinned, and where they are missing the layers stay plain.
    """

    def __init__(self, plain: nn.Linear) -> None:
        nn.Module.__init__(self)
        self.in_features, self.out_features = plain.in_features, plain.out_features
        self.weight, self.bias = plain.weight, plain.bias
        self.train(plain.training)
        self._blocks = torch.ops.mkldnn._reorder_linear_weight(plain.weight.detach(), _ROWS)

    def forward(self, input: Tensor) -> Tensor:
        out: Tensor = torch.ops.mkldnn._linear_pointwise(input, self._blocks, self.bias, "none", [], "")
        return out


def pack_linears(loaded: LoadedModel) -> None:
    """Replace the plain linear layers of a model that writes text; leave it as it was where that does not work."""
    model = loaded.model
    places = list(_places(model)) if _is_of_use(loaded) else []
    if not places:
        return
    needed = sum(plain.weight.nbytes for _, _, plain in places)
    if needed > _MEMORY_SHARE * available_memory_bytes():
        logger.info("no memory to rearrange %d MB of weights: steps of few rows take longer", needed // 10**6)
        return
    generator = torch.Generator().manual_seed(0)
    trial = torch.randint(loaded.text_config.vocab_size, (_TRIAL_TOKENS,), generator=generator).tolist()
    expected = loaded.last_logits(trial)
    kept: list[tuple[PackedLinear, Tensor]] = []
    try:
        for parent, name, plain in places:
            packed = PackedLinear(plain)
            setattr(parent, name, packed)
            kept.append((packed, plain.weight))
        _forget_plain_weights(model)
        worst = difference(loaded.last_logits(trial), expected)
    except Exception:
        logger.debug("packing failed", exc_info=True)
        worst = float("inf")
    if not worst <= _DIFFERENCE:
        logger.warning("%s: its linear layers do not work in blocks, and stay plain", type(model).__name__)
        for packed, weight in kept:
            packed.weight = weight
        for parent, name, plain in places:
            setattr(parent, name, plain)


def _is_of_use(loaded: LoadedModel) -> bool:
    return (
        loaded.kind is ModelKind.CAUSAL
        and loaded.device.type == "cpu"
        and torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
        and bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
    )


def _places(model: nn.Module) -> Iterator[tuple[nn.Module, str, nn.Linear]]:
    """Yield (parent, name, layer) of what can be replaced: no subclass, no hooks, and weights in memory."""
    for parent in model.modules():
        for name, layer in parent.named_children():
            if type(layer) is not nn.Linear or is_hooked(layer) or "forward" in vars(layer):
                continue
            if layer.weight.dtype == torch.bfloat16 and layer.weight.device.type == "cpu":
                yield parent, name, layer


def _forget_plain_weights(model: nn.Module) -> None:
    """Drop the data of weights that only packed layers have; a head may share its weights with the embedding."""
    others = {
        id(weight)
        for module in model.modules()
        if not isinstance(module, PackedLinear)
        for weight in module.parameters(recurse=False)
    }
    for module in model.modules():
        if isinstance(module, PackedLinear) and id(module.weight) not in others:
            module.weight = nn.Parameter(torch.empty_like(module.weight, device="meta"), requires_grad=False)
