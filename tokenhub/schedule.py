"""What is done from time to time whether or not anybody asks: sums, prices, making room.

Needs no board and no vault, so that each of it can be run by hand as well.
"""

from __future__ import annotations

from functools import partial

from tokenhub import budget_alerts, retention, rotation_alerts, store
from tokenhub.catalog import Catalog
from tokenhub.config import Settings
from tokenhub.db import Database, upkeep
from tokenhub.jobs import Job
from tokenhub.prices import Prices

ROLL_UP_SECS = 300.0
PRUNE_SECS = 900.0
TIDY_SECS = 10.0
USES_SECS = 60.0
ALERT_SECS = 10.0
ROTATION_SECS = 60.0


def upkeep_jobs(settings: Settings, database: Database, catalog: Catalog) -> list[Job]:
    """The jobs that keep the database in order and the prices up to date."""
    rules = retention.rules_of(settings.log_retention_days)
    jobs = [
        Job("rollup", ROLL_UP_SECS, partial(retention.roll_up, database), "cluster"),
        Job("prune", PRUNE_SECS, partial(retention.prune, database, rules), "cluster"),
        Job("budget alerts", ALERT_SECS, partial(budget_alerts.tell, database), "cluster"),
        Job("rotation alerts", ROTATION_SECS, partial(rotation_alerts.tell, database), "cluster"),
        Job("tidy", TIDY_SECS, partial(upkeep.tidy, database)),
        Job("key uses", USES_SECS, partial(database.write, store.note_key_uses), "cluster"),
    ]
    if settings.pricing_refresh_enabled and settings.pricing_source:
        prices = Prices(settings=settings, catalog=catalog, database=database)
        every_secs = settings.pricing_refresh_interval_secs
        jobs.append(Job("prices", every_secs, prices.refresh_all, "cluster"))
    return jobs
