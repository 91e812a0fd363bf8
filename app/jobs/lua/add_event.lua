-- Included by every script that notifies followers of an event: appends it to the job's stream and returns its notification,
-- `<job id> <id of the event before> <its id> <type> <data>`, or the job's id alone where that would be long; nil where
-- no client follows.
local NOTIFICATION_BYTES = 16384 -- a longer event is read by those that wait for it

local function add_event(events_key, job_id, is_followed, event_type, data, ...)
  local last = is_followed and redis.call('XREVRANGE', events_key, '+', '-', 'COUNT', 1)[1]
  local id = redis.call('XADD', events_key, '*', 'type', event_type, 'data', data, ...)
  if not is_followed then return nil end
  if #data > NOTIFICATION_BYTES then return job_id end
  return table.concat({job_id, last and last[1] or '0-0', id, event_type, data}, ' ')
end
