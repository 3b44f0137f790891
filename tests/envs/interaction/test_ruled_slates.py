"""Rules on slates: whatever comes in, what comes out keeps them, and what kept them stays as it was."""

from dataclasses import replace
from functools import lru_cache

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import Tensor

from recloop.encoders.base.errors import RecloopError
from recloop.envs.interaction.item_columns import ItemColumns, Labels
from recloop.envs.interaction.ruled_slates import RuledSlates
from recloop.envs.interaction.rules import Rules, least_places
from recloop.envs.logs.schema import Signal
from recloop.envs.world.tables import Catalogue

ITEMS, K = 24, 5
SIGNALS = (Signal("click"), Signal("buy", given_on="click"))


@lru_cache
def catalogue(seed: int = 0) -> Catalogue:
    """24 items of 6 brands (some without one) and 3 makers; less popular by row."""
    generator = torch.Generator().manual_seed(seed)
    brand = torch.randint(0, 7, (ITEMS,), generator=generator)
    maker = torch.arange(ITEMS) % 3
    columns = ItemColumns(
        {"units": torch.cat([torch.arange(ITEMS) % 4, torch.zeros(1, dtype=torch.int64)]).float()},
        {
            "brand": Labels(torch.cat([brand, torch.tensor([6])]), tuple("abcdef")),
            "maker": Labels(torch.cat([maker, torch.tensor([3])]), ("local", "near", "far")),
        },
    )
    ids = tuple(f"i{row}" for row in range(ITEMS))
    return Catalogue(ids, ids, ids, torch.arange(ITEMS, 0, -1).float(), columns=columns)


def nothing_barred(lanes: Tensor, items: Tensor) -> Tensor:
    return torch.zeros_like(items, dtype=torch.bool)


def obeys(slate: list[int], rules: Rules, items: Catalogue, k: int) -> bool:
    """One slate against the rules, in plain Python."""
    shown = [row for row in slate if row < ITEMS]

    def word(column: str, row: int) -> str | None:
        found = items.columns.labels[column]
        code = int(found.codes[row])
        return found.names[code] if code < len(found.names) else None

    def belongs(row: int, entry: str) -> bool:
        column, _, value = entry.partition("=")
        return word(column, row) == value if value else items.ids[row] == entry

    if any(belongs(row, entry) for row in shown for entry in rules.never):
        return False
    if rules.only and not all(any(belongs(row, entry) for entry in rules.only) for row in shown):
        return False
    for column, most in rules.at_most.items():
        words = [word(column, row) for row in shown]
        if any(words.count(one) > most for one in set(words) - {None}):
            return False
    return all(sum(belongs(r, g) for r in shown) >= least_places(share, k) for g, share in rules.at_least.items())


entries = st.sampled_from([*(f"i{row}" for row in range(ITEMS)), "brand=a", "brand=b", "maker=far"])
some_rules = st.builds(
    Rules,
    only=st.sampled_from([(), ("maker=local", "maker=near"), ("maker=far", "i0", "i1", "brand=c")]),
    never=st.lists(entries, max_size=5).map(tuple),
    at_most=st.dictionaries(st.sampled_from(["brand", "maker"]), st.integers(1, 4)),
    at_least=st.dictionaries(st.sampled_from(["maker=local", "brand=a", "maker=near"]), st.sampled_from([0.2, 0.4])),
)
slates = st.lists(st.lists(st.integers(0, ITEMS), min_size=K, max_size=K), min_size=1, max_size=12)


def ruled_or_skip(rules: Rules, items: Catalogue) -> RuledSlates:
    try:
        return RuledSlates(rules, items, SIGNALS, K)
    except RecloopError:
        assume(False)
        raise


@given(rules=some_rules, given_slates=slates, seed=st.integers(0, 3))
@settings(deadline=None, max_examples=80)
def test_whatever_comes_in_what_comes_out_keeps_the_rules(rules: Rules, given_slates: list, seed: int) -> None:
    items = catalogue(seed)
    ruled = ruled_or_skip(rules, items)
    before = torch.tensor(given_slates)
    after, changed = ruled.mended(before, nothing_barred)
    for one, made, places in zip(given_slates, after.tolist(), changed.tolist(), strict=True):
        shown = [row for row in made if row < ITEMS]
        assert obeys(made, rules, items, K)
        assert len(set(shown)) == len(shown)
        valid = [row if row not in one[:place] else ITEMS for place, row in enumerate(one)]  # repeats are struck
        if obeys(valid, rules, items, K):
            assert made == valid
            assert places == 0
        else:
            assert places == sum(a != b for a, b in zip(valid, made, strict=True)) > 0
        assert all(made[place] < ITEMS for place, row in enumerate(valid) if row < ITEMS)


@given(rules=some_rules, given_slates=slates, seed=st.integers(0, 3))
@settings(deadline=None, max_examples=30)
def test_a_mended_slate_is_not_mended_again(rules: Rules, given_slates: list, seed: int) -> None:
    ruled = ruled_or_skip(rules, catalogue(seed))
    once, _ = ruled.mended(torch.tensor(given_slates), nothing_barred)
    twice, changed = ruled.mended(once, nothing_barred)
    assert torch.equal(once, twice)
    assert not bool(changed.any())


@given(given_slates=slates, barred=st.sets(st.integers(0, ITEMS - 1), max_size=ITEMS))
@settings(deadline=None, max_examples=30)
def test_what_a_lane_may_not_be_shown_fills_no_place(given_slates: list, barred: set[int]) -> None:
    """Where too little is left places stay empty, and no rule but the floor is broken."""
    rules = Rules(never=("i0",), at_most={"brand": 1}, at_least={"maker=local": 0.2})
    ruled = RuledSlates(rules, catalogue(), SIGNALS, K)
    table = torch.zeros(ITEMS + 1, dtype=torch.bool)
    table[list(barred)] = True
    after, _ = ruled.mended(torch.tensor(given_slates), lambda lanes, items: table[items])
    for made in after.tolist():
        assert not set(made) & barred
        assert obeys(made, replace(rules, at_least={}), catalogue(), K)


@given(given_slates=slates, units=st.lists(st.integers(0, 3), min_size=ITEMS, max_size=ITEMS))
@settings(deadline=None, max_examples=30)
def test_nobody_is_shown_what_is_not_in_stock(given_slates: list, units: list[int]) -> None:
    ruled = RuledSlates(Rules(at_most={"brand": 2}, stock={"i0": 2}), catalogue(), SIGNALS, K)
    stock = torch.tensor([*units, 1 << 40])
    after, _ = ruled.mended(torch.tensor(given_slates), nothing_barred, stock)
    shown = torch.bincount(after.flatten(), minlength=ITEMS + 1)[:-1]
    assert bool((shown <= stock[:-1]).all())
    assert all(obeys(made, ruled.rules, catalogue(), K) for made in after.tolist())


def test_by_hand() -> None:
    """The forbidden top goes to the most popular item; the third of one maker to the next that fits."""
    ruled = RuledSlates(Rules(never=("i3",), at_most={"maker": 2}), catalogue(), SIGNALS, K)
    after, changed = ruled.mended(torch.tensor([[3, 1, 4, 7, 2], [0, 1, 2, 3, 4], [6, 6, 1, 2, 24]]), nothing_barred)
    assert after.tolist() == [[0, 1, 4, 5, 2], [0, 1, 2, 5, 4], [6, 24, 1, 2, 24]]
    assert changed.tolist() == [2, 1, 0]


def test_a_floor_takes_the_lowest_places() -> None:
    ruled = RuledSlates(Rules(at_least={"maker=far": 0.4}), catalogue(), SIGNALS, K)
    after, changed = ruled.mended(torch.tensor([[0, 1, 3, 4, 6], [2, 0, 1, 5, 4], [0, 1, 2, 24, 24]]), nothing_barred)
    assert after.tolist() == [[0, 1, 3, 2, 5], [2, 0, 1, 5, 4], [0, 1, 2, 5, 24]]
    assert changed.tolist() == [2, 0, 1]


def test_what_may_join_a_slate() -> None:
    ruled = RuledSlates(Rules(at_most={"maker": 1}, at_least={"i9": 0.2}), catalogue(), SIGNALS, 3)
    everything = torch.arange(ITEMS).unsqueeze(0)
    free = ruled.open(everything, torch.tensor([[1, 24, 24]]))[0]
    assert free.nonzero()[:, 0].tolist() == [row for row in range(ITEMS) if row % 3 != 1]
    last = ruled.open(everything, torch.tensor([[1, 2, 24]]))[0]
    assert last.nonzero()[:, 0].tolist() == [9]


def test_a_ranking_gives_its_first_that_keep_the_rules() -> None:
    ruled = RuledSlates(Rules(at_most={"maker": 1}), catalogue(), SIGNALS, 3)
    assert ruled.first_keeping(torch.tensor([[0, 3, 6, 4, 7, 2], [0, 3, 6, 9, 12, 24]])).tolist() == [
        [0, 4, 2],
        [0, 3, 6],  # too few do: the core mends the rest
    ]


@pytest.mark.parametrize(
    ("rules", "said"),
    [
        ({"nevr": ["i0"]}, "unknown rule 'nevr'; did you mean 'never'"),
        ({"never": ["j0"]}, "rule never: no item 'j0' among 24"),
        ({"only": ["brand=z"]}, "rule only: unknown brand 'z'"),
        ({"at_most": {"brnd": 1}}, "rule at_most: unknown item column 'brnd'; did you mean 'brand'"),
        ({"at_most": {"brand": 0}}, "rule at_most brand: 0 is no number of items"),
        ({"at_least": {"maker=far": 2}}, "rule at_least maker=far: 2 is no share of a slate"),
        ({"only": ["i1", "i2"]}, "leave 2 of 24 items to show, fewer than slate_size=5"),
        ({"at_most": {"maker": 1}}, "rule at_most maker: 1 fills 3 places of a slate and slate_size=5"),
        ({"at_least": {"i3": 0.4}}, "rule at_least i3: 1 such item.* 2 of 5 places are asked for"),
        ({"at_least": {"maker=far": 0.6, "maker=near": 0.6}}, "the groups ask for 6 places of 5"),
        ({"at_most": {"maker": 2}, "at_least": {"maker=far": 0.6}}, "no slate of 5 items is found that keeps all"),
        ({"stock": "unit"}, "rule stock: unknown column of numbers 'unit'; did you mean 'units'"),
        ({"stock": {"i1": -1}}, "rule stock i1: -1 is no number of units"),
        ({"never": ["i1"], "takes": "by"}, "rule takes: unknown signal 'by'; did you mean 'buy'"),
        ({"at_most": 2}, "rule at_most: 2 is no table"),
    ],
)
def test_rules_that_nobody_can_keep_are_refused_at_the_start(rules: dict, said: str) -> None:
    with pytest.raises(RecloopError, match=said) as error:
        RuledSlates(Rules.of(rules), catalogue(), SIGNALS, K)
    assert len(str(error.value).splitlines()) == 1


def test_rules_are_files_and_come_back(tmp_path) -> None:  # type: ignore[no-untyped-def]
    path = tmp_path / "rules.yaml"
    path.write_text("never: [i3, brand=a]\nat_most: {maker: 2}\nat_least: {maker=far: 0.2}\nstock: units\n")
    rules = Rules.of(path)
    assert rules == Rules(never=("i3", "brand=a"), at_most={"maker": 2}, at_least={"maker=far": 0.2}, stock="units")
    assert Rules.of(rules.as_dict()) == rules
    assert not Rules.of({})
    with pytest.raises(RecloopError, match=r"--rules .*none.yaml cannot be read"):
        Rules.of(tmp_path / "none.yaml")
