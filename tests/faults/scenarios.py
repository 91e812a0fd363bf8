"""The scenarios in the order of the table, the longest ones first."""

from tests.faults import batches, cancellations, lost_connections, lost_workers, real_model, too_much

SCENARIOS = (
    batches.MANY_SETTLED,
    lost_workers.POISON,
    lost_workers.LATE_POISON,
    batches.EVERYTHING_KILLED,
    real_model.REAL_MODEL,
    lost_workers.ONE_OF_TWO_KILLED,
    lost_workers.ONLY_ONE_KILLED,
    lost_workers.ONE_OF_TWO_STANDS_STILL,
    lost_workers.ONLY_ONE_STANDS_STILL,
    lost_workers.ALL_RESTARTED,
    lost_connections.API_KILLED,
    lost_connections.REDIS_KILLED,
    lost_connections.CONNECTIONS_KILLED,
    lost_connections.CLIENTS_PAUSED,
    lost_connections.REDIS_STOPPED,
    cancellations.CANCELED_WITHOUT_WORKER,
    cancellations.CANCEL_STORM,
    too_much.OVERLOAD,
    too_much.SOAK,
)
