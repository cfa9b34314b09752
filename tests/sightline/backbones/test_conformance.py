"""What every registered family must do. A new family is covered by registering a variant whose name ends in _demo."""

import dataclasses

import pytest
import torch

from sightline.backbones import CLASS_TOKEN, Backbone, HeadOutputs, Observer, TokenState
from sightline.types import Unit

# Sums of some hundred float32 products in another order; logits are of order 1.
TOLERANCE = {"rtol": 1e-5, "atol": 1e-5}


def every_site(backbone: Backbone) -> list[tuple[int, str, tuple[int, ...]]]:
    return [(info.index, site.name, site.heads) for info in backbone.layers for site in info.sites]


def run_layer_by_hand(backbone: Backbone, state: TokenState, index: int, change) -> TokenState:
    """Run layer ``index`` step by step, with a function applied to what each site has attended."""
    layer = backbone.layer_modules()[index]
    for site in layer.sites:
        state = layer.project(state, site.name, change(site.name, layer.attend(state, site.name)))
    return layer.mlp_step(state)


@torch.no_grad()
def test_forward_is_embed_run_classify(backbone, clips, logits):
    assert torch.equal(backbone.classify(backbone.run(backbone.embed(clips))), logits)
    assert torch.isfinite(logits).all()
    assert logits.shape == (2, 7)


@torch.no_grad()
def test_any_split_of_the_layers_agrees(backbone, clips, logits):
    for split in range(backbone.depth + 1):
        state = backbone.run(backbone.embed(clips), 0, split)
        assert torch.equal(backbone.classify(backbone.run(state, split)), logits), split


@torch.no_grad()
def test_float_clips_are_the_same_as_uint8(backbone, clips, logits):
    torch.testing.assert_close(backbone(clips.float() / 255), logits, **TOLERANCE)


@torch.no_grad()
def test_clips_do_not_influence_each_other(backbone, clips, logits):
    for i in range(len(clips)):
        torch.testing.assert_close(backbone(clips[i : i + 1]), logits[i : i + 1], **TOLERANCE)


@torch.no_grad()
def test_gating_a_head_is_zeroing_its_output_by_hand(backbone, clips, logits):
    for index, name, heads in every_site(backbone):
        before = backbone.before_layer(index, backbone.run(backbone.embed(clips), 0, index))
        for position in {0, len(heads) - 1}:

            def zero(site: str, attended: HeadOutputs, name=name, position=position) -> HeadOutputs:
                if site != name:
                    return attended
                changed = attended.heads.clone()
                changed[:, :, position] = 0
                return dataclasses.replace(attended, heads=changed)

            expected = backbone.classify(backbone.run(run_layer_by_hand(backbone, before, index, zero), index + 1))
            gate = torch.ones(len(heads))
            gate[position] = 0
            gated = backbone(clips, gates={(index, name): gate})
            torch.testing.assert_close(gated, expected, **TOLERANCE)
            assert not torch.equal(gated, logits), (index, name, position)


@torch.no_grad()
def test_gates_can_differ_between_clips(backbone, clips, logits):
    index, name, heads = every_site(backbone)[0]
    gate = torch.ones(2, len(heads))
    gate[1] = 0
    mixed = backbone(clips, gates={(index, name): gate})
    torch.testing.assert_close(mixed[:1], logits[:1], **TOLERANCE)
    torch.testing.assert_close(mixed[1:], backbone(clips[1:], gates={(index, name): gate[1]}), **TOLERANCE)


@torch.no_grad()
def test_gating_all_heads_zeroes_every_output(backbone, clips):
    gates = {(index, name): torch.zeros(len(heads)) for index, name, heads in every_site(backbone)}
    observer = Observer(heads=True)
    backbone(clips, gates=gates, observer=observer)
    assert set(observer.sites) == set(gates)
    assert all((seen.heads == 0).all() for seen in observer.sites.values())


@torch.no_grad()
def test_contribution_is_what_zeroing_a_head_takes_away(backbone, clips):
    for index, name, heads in every_site(backbone):
        layer = backbone.layer_modules()[index]
        state = backbone.before_layer(index, backbone.run(backbone.embed(clips), 0, index))
        for site in layer.sites:
            attended = layer.attend(state, site.name)
            after = layer.project(state, site.name, attended)
            if site.name == name:
                gate = torch.ones(len(heads))
                gate[-1] = 0
                expected = after.tokens - layer.project(state, name, attended.gated(gate)).tokens
                contribution = layer.contribution(state, name, attended, len(heads) - 1)
                torch.testing.assert_close(contribution, expected, rtol=1e-4, atol=1e-5)
            state = after


@torch.no_grad()
def test_readout_is_run_and_classify(backbone, clips, logits):
    for model in (backbone, backbone.without([backbone.depth - 1]), without_most_heads(backbone)):
        expected = model(clips)
        for start in range(backbone.depth + 1):
            state = model.run(model.embed(clips), 0, start)
            torch.testing.assert_close(model.readout(state, start), expected, **TOLERANCE)


@torch.no_grad()
def test_class_tokens_alone_have_the_heads_that_they_have_among_all(backbone, clips):
    last = backbone.last_read_layer()
    if last is None:  # all tokens are read
        return
    for model in (backbone, without_most_heads(backbone)):
        layer, state = model.layer_modules()[last], model.run(model.embed(clips), 0, last)
        for site in layer.sites[:-1]:
            state = layer.project(state, site.name, layer.attend(state, site.name))
        site = layer.sites[-1]
        whole, alone = layer.attend(state, site.name), layer.attend_class(state, site.name)
        after = layer.project(state, site.name, whole).only_class_tokens()
        torch.testing.assert_close(layer.project(state, site.name, alone).tokens, after.tokens, **TOLERANCE)
        for position in range(len(site.heads)):
            expected = layer.contribution(state, site.name, whole, position)[:, :1]
            found = layer.contribution(state, site.name, alone, position)
            assert expected.abs().max() > 1e-3
            torch.testing.assert_close(found, expected, **TOLERANCE)


def without_most_heads(backbone: Backbone) -> Backbone:
    """All but the second head of every site removed, and the last site's all gone but two."""
    last = backbone.layers[-1]
    units = [
        Unit(index, name, head)
        for index, name, heads in every_site(backbone)
        for head in (heads[2:] if (index, name) == (last.index, last.sites[-1].name) else (heads[0], *heads[2:]))
    ]
    return backbone.without_heads(units)


@torch.no_grad()
def test_a_removed_layer_is_a_skipped_layer_and_really_gone(backbone, clips):
    total = sum(p.numel() for p in backbone.parameters())
    for info in backbone.layers:
        if not info.removable:
            continue
        own = sum(p.numel() for p in backbone.layer_modules()[info.index].parameters())
        smaller = backbone.without([info.index])
        assert torch.equal(smaller(clips), backbone(clips, skip={info.index}))
        assert sum(p.numel() for p in smaller.parameters()) == total - own
        assert [i.index for i in smaller.layers] == [i.index for i in backbone.layers if i.index != info.index]
        assert set(smaller.state_dict()) < set(backbone.state_dict())


@torch.no_grad()
def test_all_removable_layers_can_go_at_once(backbone, clips):
    removable = [info.index for info in backbone.layers if info.removable]
    smaller = backbone.without(removable)
    assert torch.equal(smaller(clips), backbone(clips, skip=set(removable)))


@torch.no_grad()
def test_a_removed_head_is_a_gated_head_and_really_gone(backbone, clips):
    units = [Unit(index, name, heads[-1]) for index, name, heads in every_site(backbone)]
    gates = {(i, n): torch.tensor([1.0] * (len(h) - 1) + [0.0]) for i, n, h in every_site(backbone)}
    smaller = backbone.without_heads(units)
    torch.testing.assert_close(smaller(clips), backbone(clips, gates=gates), rtol=1e-4, atol=1e-5)
    assert set(smaller.units("heads")) == set(backbone.units("heads")) - set(units)
    assert sum(p.numel() for p in smaller.parameters()) < sum(p.numel() for p in backbone.parameters())


@torch.no_grad()
def test_a_site_can_lose_all_its_heads(backbone, clips):
    info = backbone.layers[0]
    for site in info.sites:
        units = [Unit(info.index, site.name, head) for head in site.heads]
        gated = backbone(clips, gates={(info.index, site.name): torch.zeros(len(units))})
        torch.testing.assert_close(backbone.without_heads(units)(clips), gated, **TOLERANCE)


@torch.no_grad()
def test_fused_and_stepwise_attention_agree_in_every_layer(backbone, clips):
    state = backbone.embed(clips)
    for index in range(backbone.depth):
        observer = Observer(attention=True, keys=True)
        stepwise = backbone.run(state, index, index + 1, observer=observer)
        state = backbone.run(state, index, index + 1)
        torch.testing.assert_close(stepwise.tokens, state.tokens, rtol=1e-4, atol=1e-5)
        for seen in observer.sites.values():
            sums = seen.attention.sum(dim=-1)
            torch.testing.assert_close(sums, torch.ones_like(sums), rtol=0, atol=1e-5)
            assert seen.keys.shape[:4] == (*seen.attention.shape[:3], seen.attention.shape[-1])
            assert seen.layout is not None


@torch.no_grad()
def test_an_observer_keeps_the_layers_that_it_names_and_leaves_the_others_fused(backbone, clips, monkeypatch):
    asked = {}
    for index, layer in backbone.layer_modules().items():
        attend = layer.attend

        def noted(state, site, weights=False, keys=False, features=(), attend=attend, index=index):
            asked[index] = asked.get(index, False) or weights or keys
            return attend(state, site, weights, keys)

        monkeypatch.setattr(layer, "attend", noted)
    observer = Observer(attention=True, keys=True, layers={1})
    backbone(clips, observer=observer)
    assert {index for index, _ in observer.sites} == {1}
    assert asked == {index: index == 1 for index in backbone.layer_modules()}


@torch.no_grad()
def test_the_keys_of_every_site_tile_the_clip(backbone, clips):
    """Their boxes cover every pixel of every frame once; class tokens have none; queries and keys fit the weights."""
    observer = Observer(attention=True)
    backbone(clips, observer=observer)
    spec = backbone.input_spec
    assert list(observer.sites) == [(index, name) for index, name, _ in every_site(backbone)]
    for site, seen in observer.sites.items():
        layout, shape = seen.layout, seen.attention.shape
        assert layout.cells.shape[1:] == (shape[1], shape[4]), site
        assert layout.query_weights.shape[1:] == (shape[1], shape[3]), site
        assert (layout.query_weights >= 0).all()
        assert (layout.query_weights.flatten(1).sum(dim=1) > 0).all()
        covered = torch.zeros(spec.frames, spec.height, spec.width, dtype=torch.int)
        boxes, cells = layout.boxes(spec), layout.cells
        assert boxes.shape == (*cells.shape, 6)
        assert (boxes[cells < 0] == 0).all()
        for t0, t1, y0, y1, x0, x1 in boxes[0].flatten(0, 1).tolist():
            covered[t0:t1, y0:y1, x0:x1] += 1
        assert (covered == 1).all(), site
        patches = cells[0].flatten()[cells[0].flatten() >= 0]
        assert patches.sort().values.tolist() == list(range(layout.grid[0] * layout.grid[1] * layout.grid[2])), site
        assert backbone.embed(clips).class_tokens > 0 or CLASS_TOKEN not in cells


@torch.no_grad()
def test_square_attention_is_what_it_says(backbone, clips):
    """Queries are keys at every site, and the cells of all layers are the same."""
    observer = Observer(attention=True)
    backbone(clips, observer=observer)
    shapes = [seen.attention.shape[3:] for seen in observer.sites.values()]
    cells = {(seen.layout.grid, seen.layout.cell) for seen in observer.sites.values()}
    square = all(queries == keys for queries, keys in shapes) and len(cells) == 1
    assert backbone.square_attention == square


def test_observed_quantities_are_differentiable(backbone, clips):
    observer = Observer(attention=True, heads=True)
    backbone(clips, observer=observer)[:, 0].sum()
    seen = next(iter(observer.sites.values()))
    (gradient,) = torch.autograd.grad(seen.attention.square().sum(), backbone.parameters(), allow_unused=True)[:1]
    assert seen.heads.requires_grad
    assert gradient is not None


@torch.no_grad()
def test_interventions_leave_nothing_behind(backbone, clips, logits):
    index, name, heads = every_site(backbone)[-1]
    state = {key: value.clone() for key, value in backbone.state_dict().items()}
    backbone(clips, skip={0}, gates={(index, name): torch.zeros(len(heads))}, observer=Observer(attention=True))
    with pytest.raises(RuntimeError):
        backbone(clips, gates={(index, name): torch.ones(len(heads) + 1)})
    backbone.without([i.index for i in backbone.layers if i.removable][:1])
    assert torch.equal(backbone(clips), logits)
    assert all(torch.equal(value, state[key]) for key, value in backbone.state_dict().items())


def test_nothing_cached_survives_a_change_of_the_weights(backbone, clips):
    model = build_copy(backbone)
    with torch.no_grad():
        before = model(clips)
        for parameter in model.parameters():
            parameter.mul_(1.3)
        changed = model(clips)
    twin = build_copy(model)
    with torch.no_grad():
        assert torch.equal(changed, twin(clips))
        assert not torch.equal(changed, before)
    with torch.inference_mode():
        model(clips)
    model(clips)[:, 0].sum().backward()  # nothing from inference mode may be met here
    assert all(p.grad is not None for p in model.parameters() if p.requires_grad)


def build_copy(backbone: Backbone) -> Backbone:
    twin = type(backbone)(backbone.config, backbone.record)
    twin.load_state_dict(backbone.state_dict())
    return twin.eval()


def test_what_does_not_exist_is_refused(backbone):
    with pytest.raises(ValueError, match=f"no layer {backbone.depth}"):
        backbone.without([backbone.depth])
    with pytest.raises(ValueError, match="head 99"):
        backbone.without_heads([Unit(0, "attention", 99)])
    with pytest.raises(ValueError, match="kind must be"):
        backbone.units("neurons")
    for info in backbone.layers:
        if not info.removable:
            with pytest.raises(ValueError, match=f"layer {info.index}"):
                backbone.without([info.index])


def test_parameters_without_weight_decay_exist(backbone):
    names = {name.rpartition(".")[2] for name, _ in backbone.named_parameters()}
    assert backbone.no_weight_decay <= names
    # Whatever weight decay shrinks belongs to a linear layer or a convolution, and is named as in PyTorch.
    matrices = {name for name, p in backbone.named_parameters() if p.dim() > 1}
    assert {name.rpartition(".")[2] for name in matrices} - backbone.no_weight_decay == {"weight"}


def test_clips_of_another_shape_or_type_are_refused(backbone, clips):
    spec = backbone.input_spec
    with pytest.raises(ValueError, match=f"3, {spec.frames}, {spec.height}, {spec.width}"):
        backbone.embed(clips[:, :, :-1])
    with pytest.raises(ValueError, match="int64"):
        backbone.embed(clips.long())


def test_stacked_states_run_as_one(backbone, clips):
    with torch.no_grad():
        state = backbone.run(backbone.embed(clips), 0, 1)
        out = backbone.classify(backbone.run(TokenState.stack([state, state]), 1))
        torch.testing.assert_close(out[:2], out[2:], **TOLERANCE)
        torch.testing.assert_close(out[:2], backbone(clips), **TOLERANCE)
