"""What columns are called where nobody says, and how names are compared."""

import re
from collections.abc import Iterable, Sequence

from recloop.envs.logs.readers.columns.cells import words
from recloop.envs.logs.schema import Columns

ALIASES = {
    Columns.user: words(
        "user_id user uid customer_id customer visitor_id visitor member_id reviewer_id account_id client_id "
        "profile_id person_id reader_id listener_id viewer_id cookie_id cust_id user_pseudo_id distinct_id "
        "anonymous_id"
    ),
    Columns.item: words(
        "item_id item iid movie_id product_id product video_id sku asin parent_asin article_id news_id song_id "
        "track_id anime_id book_id isbn business_id game_id content_id goods_id ad_id joke_id listing_id items "
        "item_ids item_list impressions article_ids_inview app_id artist_id recipe_id post_id"
    ),
    Columns.session: words("session_id session visit_id sess_id"),
    Columns.session_end: words("session_end"),
    Columns.slate: words("slate_id slate impression_id request_id recommendation_id display_id page_view_id"),
    Columns.position: words("position rank slot place"),
    Columns.propensity: words("propensity propensity_score"),
    Columns.policy: words("policy logging_policy policy_id"),
    "event": words("event event_type event_name action action_type behavior behaviour behavior_type interaction_type"),
}
"""What columns are called where nobody says; case, blanks and underscores do not matter."""
TIME_NAMES = words(
    "timestamp time event_time ts datetime date_time date unix_review_time time_ms timestamp_ms created_at"
)
"""Usual names of the time, the most usual first; any name that ends in time, date, timestamp, ts or at is tried too."""
SHOWN_AND_TAKEN = (
    "label",
    "click",
    "clicked",
    "is_click",
    "is_clicked",
    "clicks",
    "consume",
    "consumed",
    "taken",
    "article_ids_clicked",
)
"""Columns that say whether what was shown was taken: the consumption of a log with exposures."""
LISTED = words("items item_ids item_list impressions article_ids_inview")
"""Names of item columns of which each cell holds several: lists, or text of ids."""


def plain(name: str) -> str:
    """A column's name as it is compared.

    >>> plain("userId"), plain("User ID"), plain("is_clicked"), plain("unixReviewTime")
    ('user_id', 'user_id', 'is_clicked', 'unix_review_time')
    """
    parted = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name.strip())
    return re.sub(r"[^a-z0-9]+", "_", parted.lower()).strip("_")


def usually_called(names: Sequence[str], aliases: Sequence[str], taken: Iterable[str]) -> list[str]:
    """Columns with a usual name, the most usual first; where there is none, `properties.item_id` by its last part."""
    nested = [alias for alias in aliases if alias.endswith(("id", "sku", "asin", "isbn"))]
    for part, known in ((slice(None), aliases), (slice(-1, None), nested)):
        by_name: dict[str, list[str]] = {}
        for name in names:
            if name not in taken:
                last = ".".join(name.split(".")[part])
                by_name.setdefault(plain(last).replace("_", ""), []).append(name)
        found = [name for alias in known for name in by_name.get(alias.replace("_", ""), [])]
        if found:
            break
    return found
