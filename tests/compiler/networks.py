"""Small networks, each with a habit that a recorded program could get wrong."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from timm.layers import ScaledStdConv2d, StdConv2d
from torch import Tensor, nn

from gatehub.adapter import Adapter
from gatehub.backbone import Backbone
from tests.tiny import make_trained, settle_norms

SIDE = 12

Wiring = Callable[["Wired", Tensor], Tensor]


class Wired(nn.Module):
    """A stem, a body and a classifier, wired by a function; stages "stem", "norm", "body", …"""

    def __init__(self, wiring: Wiring, *, width: int = 8, **layers: nn.Module) -> None:
        super().__init__()
        self.pretrained_cfg = {"input_size": (3, SIDE, SIDE), "crop_pct": 1.0}
        self.wiring, self.width = wiring, width
        self.stem = nn.Conv2d(3, width, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(width)
        self.body = nn.Conv2d(width, width, 3, padding=1)
        self.norm2 = nn.BatchNorm2d(width)
        for name, layer in layers.items():
            self.add_module(name, layer)
        self.reset_classifier(4)

    def reset_classifier(self, classes: int) -> None:
        self.num_classes = classes
        self.fc = nn.Linear(self.width, classes)

    def forward(self, images: Tensor) -> Tensor:
        return self.wiring(self, images)

    def begin(self, images: Tensor) -> Tensor:
        """What tasks from "body" on share."""
        return F.relu(self.norm(self.stem(images)))

    def end(self, value: Tensor) -> Tensor:
        return self.fc(value.mean((2, 3)))


class Vector(nn.Module):
    """A learned vector in a module of its own, as layer scales are kept."""

    def __init__(self, *shape: int) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.rand(shape) + 0.5)

    def forward(self, value: Tensor) -> Tensor:
        return value * self.gamma


class Channelwise(nn.Module):
    """A learned vector that works as a depthwise convolution's kernel."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.rand(channels, 1, 1, 1) + 0.5)

    def forward(self, value: Tensor) -> Tensor:
        return F.conv2d(value, self.weight, groups=len(self.weight))


def wire(wiring: Wiring, *, width: int = 8, seed: int = 0, **layers: nn.Module) -> Backbone:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = Wired(wiring, width=width, **layers)
        settle_norms(model)
    return Backbone(model)


def make_task(backbone: Backbone, name: str, *, seed: int = 1, **choices: object) -> Adapter:
    return Adapter.from_model(make_trained(backbone, seed=seed, **choices), task=name)


def in_a_row(net: Wired, x: Tensor) -> Tensor:
    return net.end(net.norm2(net.body(net.begin(x))))


def adds_to_what_it_shares(net: Wired, x: Tensor) -> Tensor:
    h = net.begin(x)
    h += net.body(h)
    return net.end(h)


def changes_a_view_beforehand(net: Wired, x: Tensor) -> Tensor:
    h = net.begin(x)
    h[:, :4].mul_(2)
    return net.end(net.body(h))


def changes_a_view_afterwards(net: Wired, x: Tensor) -> Tensor:
    h = net.begin(x)
    y = net.body(h)
    h[:, :4].add_(y[:, 4:])
    return net.end(h)


def changes_what_was_read(net: Wired, x: Tensor) -> Tensor:
    h = net.begin(x)
    y = net.body(h)
    h.mul_(2)
    return net.end(y + h)


def changes_a_view_that_is_read_later(net: Wired, x: Tensor) -> Tensor:
    h = net.begin(x)
    view = h.view(len(h), -1)
    y = net.body(h)
    h.add_(y)
    return net.fc(view.reshape(len(h), 8, -1).mean(2))


def hands_over_chunks(net: Wired, x: Tensor) -> Tensor:
    left, right = net.begin(x).chunk(2, 1)
    right.mul_(3)
    return net.end(net.body(torch.cat([right, left], 1)) + torch.cat([left, right], 1))


def hands_over_and_changes_chunks(net: Wired, x: Tensor) -> Tensor:
    h = net.begin(x)
    left, right = h.split(4, 1)
    y = net.body(h)
    left += y[:, :4]
    return net.end(torch.cat([right, left], 1) + h)


def unbinds_rows(net: Wired, x: Tensor) -> Tensor:
    h = net.begin(x)
    rows = h.unbind(2)
    return net.fc(net.body(h).mean((2, 3)) + rows[1].mean(2) - rows[-1].amax(2))


def takes_the_largest(net: Wired, x: Tensor) -> Tensor:
    h = net.begin(x)
    values, places = h.flatten(2).max(2)
    return net.fc(net.body(h).mean((2, 3)) + values + places / 100)


def changes_a_position(net: Wired, x: Tensor) -> Tensor:
    h = net.begin(x)
    place = torch.linspace(0, 1, 8)
    place.mul_(net.norm2.weight)
    return net.fc(net.norm2(net.body(h)).mean((2, 3)) + place)


def changes_a_literal(net: Wired, x: Tensor) -> Tensor:
    scale = torch.tensor([0.5, 1.0, 2.0]).view(3, 1, 1)
    scale *= 2
    return in_a_row(net, x * scale)


def changes_a_literal_late(net: Wired, x: Tensor) -> Tensor:
    h = net.begin(x)
    scale = torch.tensor([0.5, 1.0, 2.0, 1.0] * 2).view(8, 1, 1)
    h = h * scale
    scale *= net.norm2.weight.view(8, 1, 1)
    return net.end(net.norm2(net.body(h)) * scale)


def changes_its_images(net: Wired, x: Tensor) -> Tensor:
    x.mul_(0.5)
    return net.end(net.body(net.begin(x)))


def changes_its_images_late(net: Wired, x: Tensor) -> Tensor:
    y = net.body(net.begin(x))
    x.mul_(y.mean((1, 2, 3), keepdim=True))
    return net.fc(y.mean((2, 3)) + x.mean((1, 2, 3))[:, None])


def folds_channels_into_the_batch(net: Wired, x: Tensor) -> Tensor:
    h = net.begin(x)
    h = net.halves(h.reshape(len(h) * 2, 4, *h.shape[2:]))
    return net.end(net.body(h.reshape(-1, 8, *h.shape[2:])))


def doubles_the_batch(net: Wired, x: Tensor) -> Tensor:
    h = net.begin(x)
    one, other = net.body(torch.cat([h, h.flip(3)])).chunk(2)
    return net.end(one * other)


def doubles_the_batch_side_by_side(net: Wired, x: Tensor) -> Tensor:
    h = net.begin(x)
    h = torch.stack([h, h.flip(3)], 1).flatten(0, 1)
    return net.end(net.body(h).unflatten(0, (-1, 2)).sum(1))


def moves_positions_into_the_batch(net: Wired, x: Tensor) -> Tensor:
    h = net.begin(x)
    h = h.permute(2, 0, 1, 3).reshape(-1, 8, 1, h.shape[3])
    h = net.body(h)
    return net.end(h.reshape(x.shape[2], -1, 8, x.shape[3]).permute(1, 2, 0, 3))


def turns_the_batch_around(net: Wired, x: Tensor) -> Tensor:
    h = net.body(net.begin(x).flip(0))
    return net.end(h.flip(0))


def bakes_labels_in(net: Wired, x: Tensor) -> Tensor:
    y = in_a_row(net, x)
    return y.view(-1, net.num_classes, 1).squeeze(2) / net.num_classes


def counts_labels_early(net: Wired, x: Tensor) -> Tensor:
    h = net.begin(x)
    h = h * torch.ones(net.num_classes).sum()
    return net.end(net.body(h))


def reads_a_kernel_itself(net: Wired, x: Tensor) -> Tensor:
    return in_a_row(net, x) * net.body.weight.square().mean()


def runs_a_layer_twice(net: Wired, x: Tensor) -> Tensor:
    return net.end(net.body(F.relu(net.body(net.begin(x)))))


def runs_a_norm_twice(net: Wired, x: Tensor) -> Tensor:
    return net.end(net.norm2(F.relu(net.norm2(net.body(net.begin(x))))))


def borrows_a_bias(net: Wired, x: Tensor) -> Tensor:
    return net.end(F.conv2d(net.begin(x), net.body.weight, net.norm2.bias, padding=1))


def adds_twice_a_vector(net: Wired, x: Tensor) -> Tensor:
    y = net.body(net.begin(x))
    return net.end(torch.add(y, net.scale.gamma, alpha=2))


def scales_from_the_left(net: Wired, x: Tensor) -> Tensor:
    return net.end(net.scale.gamma * net.body(net.begin(x)))


def scales_in_place(net: Wired, x: Tensor) -> Tensor:
    y = net.body(net.begin(x))
    z = y.view(len(y), -1)
    y.mul_(net.scale.gamma)
    return net.fc(z.view(len(y), 8, -1).mean(2))


def scales_channels(net: Wired, x: Tensor) -> Tensor:
    return net.end(net.scale(net.body(net.begin(x))))


def scales_features_last(net: Wired, x: Tensor) -> Tensor:
    y = net.body(net.begin(x)).permute(0, 2, 3, 1)
    return net.fc(net.scale(net.layer_norm(y)).mean((1, 2)))


def normalises_groups(net: Wired, x: Tensor) -> Tensor:
    return net.end(net.group_norm(net.body(net.begin(x))))


def scales_answers(net: Wired, x: Tensor) -> Tensor:
    y = net.fc(net.norm2(net.body(net.begin(x))).mean((2, 3)))
    return y * net.norm2.weight.mean()


def convolves_answers(net: Wired, x: Tensor) -> Tensor:
    h = net.body(net.begin(x))
    y = net.fc(h.mean((2, 3)))
    return y + net.body(h * y.mean(1)[:, None, None, None]).mean((1, 2, 3))[:, None]


def branches_on_the_size(net: Wired, x: Tensor) -> Tensor:
    h = net.begin(x)
    if x.shape[3] > SIDE:
        h = net.extra(h)
    return net.end(net.body(h))


def squeezes(net: Wired, x: Tensor) -> Tensor:
    y = net.body(net.begin(x)).mean((2, 3), keepdim=True)
    return net.fc(y.squeeze(3).squeeze(2))


def keeps_a_constant(net: Wired, x: Tensor) -> Tensor:
    return net.end(net.body(net.begin(x * net.constant + net.other_constant)))


def views_beside_a_packed_kernel(net: Wired, x: Tensor) -> Tensor:
    h = F.relu(net.wide(net.begin(x).contiguous()))
    h = h.permute(0, 2, 3, 1).view(len(h), -1, 128).transpose(1, 2)
    h = h.reshape(len(h), 128, *x.shape[2:]).contiguous()
    h = net.wider(h[:, ::1]) + net.wider(h.flip(1)[:, :128])
    return net.end(net.narrow(h))


def strides_and_groups_one_kernel(net: Wired, x: Tensor) -> Tensor:
    h = net.wide(net.begin(x))
    y = net.wider(h)
    z = F.conv2d(h, net.wider.weight, None, 2, 2, 2)
    w = F.conv2d(torch.cat([h, -h], 1), net.wider.weight, None, 1, 1, 1, 2)
    return net.end(net.narrow(y) + net.narrow(z).mean((2, 3), keepdim=True) + net.narrow(w))


def pads_one_pixel(net: Wired, x: Tensor) -> Tensor:
    h = net.body(net.begin(x))
    return net.end(h + net.padded(h.mean((2, 3), keepdim=True)))


def convolves_without_a_batch(net: Wired, x: Tensor) -> Tensor:
    return net.end(net.body(net.begin(x)) + net.place(net.grid).mean())


class TwoLayers(Wired):
    """A classifier of two layers with a norm between them."""

    def reset_classifier(self, classes: int) -> None:
        self.num_classes = classes
        self.fc = nn.Sequential(
            nn.Linear(self.width, 6), nn.BatchNorm1d(6), nn.GELU(), nn.Linear(6, classes)
        )


class Block(nn.Module):
    """ConvNeXt's block (arXiv 2201.03545, figure 4), small."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv_dw = nn.Conv2d(channels, channels, 3, padding=1, groups=channels)
        self.norm = nn.LayerNorm(channels)
        self.fc1 = nn.Linear(channels, 2 * channels)
        self.fc2 = nn.Linear(2 * channels, channels)
        self.gamma = nn.Parameter(torch.rand(channels) + 0.5)

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm(self.conv_dw(x).permute(0, 2, 3, 1))
        y = self.fc2(F.gelu(self.fc1(y))) * self.gamma
        return x + y.permute(0, 3, 1, 2)


def runs_blocks(net: Wired, x: Tensor) -> Tensor:
    return net.end(net.blocks(net.body(net.begin(x))))


def runs_layers(net: Wired, x: Tensor) -> Tensor:
    return net.end(net.body(F.gelu(net.layers(net.begin(x)))))


def standard() -> Backbone:
    return wire(
        runs_layers,
        layers=nn.Sequential(
            StdConv2d(8, 8, 3, padding=1), nn.GELU(), ScaledStdConv2d(8, 8, 3, padding=1, groups=2)
        ),
    )


def tied() -> Backbone:
    backbone = wire(runs_layers, layers=nn.Sequential(nn.Conv2d(8, 8, 3, padding=1), nn.ReLU()))
    model = backbone.model
    model.layers[0].weight = model.body.weight
    return Backbone(model)


def constant() -> Backbone:
    model = wire(keeps_a_constant).model
    model.constant = torch.tensor([0.5, 1.0, 2.0]).view(3, 1, 1)
    model.other_constant = torch.tensor(0.25)
    return Backbone(model)


def two_layers() -> Backbone:
    torch.manual_seed(0)
    model = TwoLayers(in_a_row)
    settle_norms(model)
    return Backbone(model)


def unbatched() -> Backbone:
    model = wire(convolves_without_a_batch, place=nn.Conv2d(8, 8, 1)).model
    model.grid = torch.linspace(-1, 1, 8 * 4 * 4).view(8, 4, 4)
    return Backbone(model)


def wide_layers() -> dict[str, nn.Module]:
    return {
        "wide": nn.Conv2d(8, 128, 3, padding=1),
        "wider": nn.Conv2d(128, 128, 3, padding=1),
        "narrow": nn.Conv2d(128, 8, 1),
    }


def reads_a_value(net: Wired, x: Tensor) -> Tensor:
    return in_a_row(net, x) * x.mean().item()


def branches_on_a_value(net: Wired, x: Tensor) -> Tensor:
    return in_a_row(net, x if (x > 0).all() else -x)


def compares_values(net: Wired, x: Tensor) -> Tensor:
    return in_a_row(net, x if torch.allclose(x, x.abs()) else -x)


def leaves_torch(net: Wired, x: Tensor) -> Tensor:
    return in_a_row(net, x) + torch.from_numpy(x.numpy().mean((2, 3)).sum(1, keepdims=True))


def mixes_images(net: Wired, x: Tensor) -> Tensor:
    y = in_a_row(net, x)
    return y - y.mean(0)


def counts_images(net: Wired, x: Tensor) -> Tensor:
    return in_a_row(net, x) / len(x)


def counts_images_in_a_literal(net: Wired, x: Tensor) -> Tensor:
    return in_a_row(net, x) / torch.tensor(float(len(x)))


def treats_a_single_image_otherwise(net: Wired, x: Tensor) -> Tensor:
    return in_a_row(net, x) * (2.0 if len(x) == 1 else 1.0)


def treats_half_of_the_batch_otherwise(net: Wired, x: Tensor) -> Tensor:
    y = in_a_row(net, x)
    return torch.cat([y[: len(y) // 2], 2 * y[len(y) // 2 :]])


def reads_another_value_on_another_batch(net: Wired, x: Tensor) -> Tensor:
    h = net.begin(x)
    y, z = net.body(h), net.body(-h)
    return net.end(y if len(x) % 2 else z)


def runs_image_by_image(net: Wired, x: Tensor) -> Tensor:
    return torch.stack([in_a_row(net, image[None])[0] for image in x])


def unbinds_images(net: Wired, x: Tensor) -> Tensor:
    return torch.stack(in_a_row(net, x).unbind(0))


def squares_the_batch(net: Wired, x: Tensor) -> Tensor:
    return net.fc(net.begin(x).mean((2, 3)).repeat(len(x) ** 2, 1))[: len(x)]


def follows_batch_and_labels(net: Wired, x: Tensor) -> Tensor:
    return in_a_row(net, x).reshape(len(x) * net.num_classes).view(len(x), -1)


def adds_noise(net: Wired, x: Tensor) -> Tensor:
    return in_a_row(net, x + torch.randn_like(x))


def counts_its_calls(net: Wired, x: Tensor) -> Tensor:
    net.norm2.num_batches_tracked += 1
    return in_a_row(net, x)


def remembers(net: Wired, x: Tensor) -> Tensor:
    net.constant += 1
    return in_a_row(net, x) + net.constant


def answers_a_pair(net: Wired, x: Tensor) -> Any:
    return in_a_row(net, x), x


def answers_in_one_row(net: Wired, x: Tensor) -> Tensor:
    return in_a_row(net, x).flatten()


def forgetful() -> Backbone:
    model = wire(remembers).model
    model.constant = torch.zeros(1)
    return Backbone(model)


NETWORKS: dict[str, Callable[[], Backbone]] = {
    **{
        wiring.__name__: (lambda wiring=wiring: wire(wiring))
        for wiring in (
            in_a_row,
            adds_to_what_it_shares,
            changes_a_view_beforehand,
            changes_a_view_afterwards,
            changes_what_was_read,
            changes_a_view_that_is_read_later,
            hands_over_chunks,
            hands_over_and_changes_chunks,
            unbinds_rows,
            takes_the_largest,
            changes_a_position,
            changes_a_literal,
            changes_a_literal_late,
            changes_its_images,
            changes_its_images_late,
            doubles_the_batch,
            doubles_the_batch_side_by_side,
            moves_positions_into_the_batch,
            turns_the_batch_around,
            bakes_labels_in,
            counts_labels_early,
            reads_a_kernel_itself,
            runs_a_layer_twice,
            runs_a_norm_twice,
            borrows_a_bias,
            scales_answers,
            convolves_answers,
            squeezes,
        )
    },
    "folds_channels_into_the_batch": lambda: wire(
        folds_channels_into_the_batch, halves=nn.Conv2d(4, 4, 3, padding=1)
    ),
    "adds_twice_a_vector": lambda: wire(adds_twice_a_vector, scale=Vector(8, 1, 1)),
    "scales_from_the_left": lambda: wire(scales_from_the_left, scale=Vector(8, 1, 1)),
    "scales_in_place": lambda: wire(scales_in_place, scale=Vector(1, 8, 1, 1)),
    "scales_channels": lambda: wire(scales_channels, scale=Vector(8, 1, 1)),
    "scales_all": lambda: wire(scales_channels, scale=Vector()),
    "scales_by_a_convolution": lambda: wire(scales_channels, scale=Channelwise(8)),
    "scales_features_last": lambda: wire(
        scales_features_last, scale=Vector(8), layer_norm=nn.LayerNorm(8)
    ),
    "layer_norm_without_bias": lambda: wire(
        scales_features_last, scale=Vector(8), layer_norm=nn.LayerNorm(8, bias=False)
    ),
    "normalises_groups": lambda: wire(normalises_groups, group_norm=nn.GroupNorm(2, 8)),
    "runs_blocks": lambda: wire(runs_blocks, blocks=nn.Sequential(Block(8), Block(8))),
    "standard": standard,
    "tied": tied,
    "constant": constant,
    "pads_one_pixel": lambda: wire(pads_one_pixel, padded=nn.Conv2d(8, 8, 1, 3, padding=1)),
    "convolves_without_a_batch": unbatched,
    "two_layers": two_layers,
    "grouped": lambda: wire(
        runs_layers,
        layers=nn.Sequential(
            nn.Conv2d(8, 16, 3, padding=1, groups=4),
            nn.BatchNorm2d(16),
            nn.Conv2d(16, 32, 3, padding=1, groups=16, bias=False),
            nn.BatchNorm2d(32),
            nn.Conv2d(32, 8, 1, padding_mode="reflect"),
        ),
    ),
    "branches_on_the_size": lambda: wire(branches_on_the_size, extra=nn.Conv2d(8, 8, 3, padding=1)),
    "views_beside_a_packed_kernel": lambda: wire(views_beside_a_packed_kernel, **wide_layers()),
    "strides_and_groups_one_kernel": lambda: wire(strides_and_groups_one_kernel, **wide_layers()),
}


# Networks that are refused, and what is said of them.
REFUSED: dict[str, tuple[Callable[[], Backbone], str]] = {
    wiring.__name__: (lambda wiring=wiring: wire(wiring), message)
    for wiring, message in (
        (reads_a_value, r"reads values out of tensors \(aten.(item|_local_scalar_dense)\)"),
        (branches_on_a_value, "reads values out of tensors"),
        (compares_values, r"reads values out of tensors \(aten.allclose\)"),
        (leaves_torch, "of the values in an image, where no operation shows it"),
        (mixes_images, "answers for an image by what else is in its batch"),
        (counts_images, "answers for an image by what else is in its batch"),
        (counts_images_in_a_literal, "makes a tensor of the batch"),
        (treats_a_single_image_otherwise, "answer differently from it on a batch of 1"),
        (treats_half_of_the_batch_otherwise, "answer differently from it on a batch of 4"),
        (reads_another_value_on_another_batch, "reads different values at different batch sizes"),
        (runs_image_by_image, "runs different operations at different batch sizes"),
        (unbinds_images, "makes lists that grow with the batch"),
        (squares_the_batch, "uses 4 for a batch of 2 and 9 for one of 3"),
        (follows_batch_and_labels, "uses 10 for a batch of 2 and 21 for one of 3"),
        (adds_noise, "answer differently from it on a batch of 4"),
        (counts_its_calls, "changes tensors of its own while it runs"),
        (answers_a_pair, r"answers tuple to 2 images and 5 labels; expected one tensor \(2, 5\)"),
        (answers_in_one_row, r"answers \(10,\) to 2 images and 5 labels"),
    )
} | {"remembers": (forgetful, "changes tensors of its own while it runs")}
