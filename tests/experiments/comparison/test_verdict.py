"""The verdict says what the claims say, and no more."""

from recloop.experiments.comparison.claims import PLANNING, Claim, Level
from recloop.experiments.comparison.verdict import verdict


def claim(better: str, worse: str, level: Level | None = Level.this_method, **more: object) -> Claim:
    return Claim(better, worse, level, {}, {}, **more)  # type: ignore[arg-type]


OPEN = {"level": None, "against": "the difference may be chance in judge", "settle": "about 900 evaluation users"}


def test_one_policy_that_beats_all_is_best_as_far_as_the_weakest_of_its_claims_reaches() -> None:
    claims = [claim("ppo", "greedy", Level.across_judges), claim("ppo", "random"), claim("greedy", "random")]
    said = verdict(["random", "greedy", "ppo"], claims)
    assert said == "ppo is best: it beats greedy and random. This holds for this method in this world."


def test_a_policy_that_leads_by_chance_is_not_called_best() -> None:
    claims = [claim("ppo", "greedy", **OPEN), claim("ppo", "random"), claim("greedy", "random")]
    said = verdict(["random", "greedy", "ppo"], claims)
    assert said.startswith("Nobody is claimed to be best: greedy and ppo are beaten by none")
    assert said.endswith("Between ppo and greedy: the difference may be chance in judge; about 900 evaluation users.")
    assert "ppo is best" not in said


def test_one_that_nobody_beats_but_that_does_not_beat_all_is_told_so() -> None:
    claims = [claim("ppo", "greedy", **OPEN), claim("ppo", "random"), claim("random", "greedy")]
    said = verdict(["random", "greedy", "ppo"], claims)
    assert said.startswith("ppo is beaten by none and beats 1 of the 2 others (this method in this world); nothing is ")
    assert "claimed of it and greedy" in said


def test_what_holds_claims_back_is_said_and_who_is_no_competitor_is_left_out() -> None:
    held = claim("ppo", "greedy", held_back=("replay failed in train",))
    said = verdict(["greedy", "ppo"], [claim("planner", "ppo"), claim("planner", "greedy"), held])
    assert said == (
        "ppo is best: it beats greedy. This holds for this method in this world; not across judges: replay failed in "
        "train."
    )


def test_a_winner_that_plans_on_the_training_users_own_model_carries_its_warning() -> None:
    warning = f"greedy {PLANNING}"
    said = verdict(["greedy", "random"], [claim("greedy", "random", warning=warning)])
    assert said.endswith(f"This holds for this method in this world. {warning}.")
    other = verdict(["ppo", "greedy"], [claim("ppo", "greedy", warning=warning)])
    assert "upper end" not in other, "what is said of the beaten does not qualify the winner"


def test_without_any_claim_nobody_is_named() -> None:
    said = verdict(["greedy", "ppo"], [claim("ppo", "greedy", **OPEN)])
    assert said.startswith("Nobody is claimed to be best: nothing is claimed of greedy and ppo.")
    assert verdict(["ppo"], []) == "A verdict needs two policies, and there are fewer."
