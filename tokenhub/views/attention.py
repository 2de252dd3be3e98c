"""What needs somebody, the worst first, and what may wait."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from tokenhub.views.facts import Facts
from tokenhub.views.hosts import find_host_trouble
from tokenhub.views.items import SEVERITIES, Item, Severity, in_order
from tokenhub.views.running_out import find_money_trouble
from tokenhub.views.tidiness import find_untidiness
from tokenhub.views.trouble import find_trouble


class Attention(NamedTuple):
    """Args:
    snoozed: somebody has said that these may wait, by when they come back (unix ms).
    """

    items: list[Item]
    snoozed: list[tuple[Item, int]]

    @property
    def counts(self) -> Mapping[Severity, int]:
        """How many there are of each severity, without those that wait."""
        found = dict.fromkeys(SEVERITIES, 0)
        for each in self.items:
            found[each.severity] += 1
        return found


def judge(facts: Facts) -> Attention:
    """All items, those that rest apart."""
    found: Iterable[Item] = in_order(
        (
            *find_trouble(facts),
            *find_host_trouble(facts),
            *find_money_trouble(facts),
            *find_untidiness(facts),
        )
    )
    items: list[Item] = []
    snoozed: list[tuple[Item, int]] = []
    for each in found:
        rest = facts.snoozes.get(each.id)
        if rest is None:
            items.append(each)
        else:
            snoozed.append((each, rest.until_at))
    return Attention(items, snoozed)
