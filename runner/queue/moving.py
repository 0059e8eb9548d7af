"""Copy a queue from one database to another, all of it or nothing."""

from __future__ import annotations

from sqlalchemy import func, insert, select

from runner.errors import IllegalTransition, JobExists
from runner.queue import sharing
from runner.queue.database import Queue, put
from runner.queue.tables import attempts, cards_held, homes, jobs, keepers, metadata

ROWS_AT_ONCE = 500
OF_THE_MOMENT = (cards_held, homes)  # who is at work, and on what


def copy_queue(source: Queue, target: Queue, keeper: str, silent_seconds: float) -> int:
    """Returns how many jobs there are. A shared queue counts them as kept by the home `keeper`, unless it knows better.

    Raises IllegalTransition while a runner is at work on either, or an attempt is open; JobExists for a target that has
    jobs already.
    """
    with source.read() as old, target.write() as new:
        for queue, connection in ((source, old), (target, new)):
            if busy := sharing.at_work(connection, silent_seconds):
                said = f"{queue.place}: {', '.join(busy)} is at work on it, or was less than {silent_seconds:g} s ago"
                raise IllegalTransition(f"{said}; stop every runner there first")
        if running := old.scalars(select(attempts.c.job).where(attempts.c.ended_at.is_(None))).all():
            said = f"{source.place}: {', '.join(running)} runs, or a runner died of it"
            raise IllegalTransition(f"{said}; stop every runner there first, and start a dead one once more")
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
