"""Copy a queue from one database to another, all of it or nothing."""

from __future__ import annotations

from sqlalchemy import func, insert, select

from runner.errors import IllegalTransition, JobExists
from runner.queue.database import Queue, put
from runner.queue.tables import attempts, cards_held, homes, jobs, keepers, metadata

ROWS_AT_ONCE = 500
OF_THE_MOMENT = (cards_held, homes)  # who is at work, and on what


def copy_queue(source: Queue, target: Queue, keeper: str) -> int:
    """Returns how many jobs there are. A shared queue counts them as kept by the home `keeper`, unless it knows better.

    Raises IllegalTransition while a trainer works on one of them, JobExists for a target that has jobs already.
    """
    with source.read() as old, target.write() as new:
        if running := old.scalars(select(attempts.c.job).where(attempts.c.ended_at.is_(None))).all():
            raise IllegalTransition(f"{source.place}: {', '.join(running)} runs; stop every runner there first")
        if new.scalar(select(func.count()).select_from(jobs)):
            raise JobExists(f"{target.place}: has jobs already; name a queue that is empty")
        for table in metadata.sorted_tables:
            new.execute(table.delete())
            if table not in OF_THE_MOMENT:
                for rows in old.execute(select(table)).mappings().partitions(ROWS_AT_ONCE):
                    new.execute(insert(table), [dict(row) for row in rows])
        names = new.scalars(select(jobs.c.name)).all()
        if target.is_shared and not source.is_shared:
            for name in names:
                put(new, keepers, {"job": name, "home": keeper, "wanted": False})
        if target.is_shared:
            for table in metadata.sorted_tables:
                if "id" in table.c and (last := new.scalar(select(func.max(table.c.id)))):
                    new.execute(select(func.setval(func.pg_get_serial_sequence(table.name, "id"), last)))
        if not target.is_shared:
            new.execute(keepers.delete())
        return len(names)
