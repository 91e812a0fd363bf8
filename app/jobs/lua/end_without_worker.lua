-- Included, after end_job, by the scripts that end a job which no worker holds: what has been published of its output
-- stays in its record. The tokens of this are its usage; how many its prompt has was never reported.
local function published_text(events_key)
  local texts = {}
  for _, entry in ipairs(redis.call('XRANGE', events_key, '-', '+')) do
    local fields = entry[2] -- type, <type>, data, <JSON>, ...
    if fields[2] == 'delta' then texts[#texts + 1] = cjson.decode(fields[4]).text end
  end
  return table.concat(texts)
end

-- How long workers ran a job, as a text, when the last one is lost: up to the last renewal of its lease.
local function ran_until_lost(ran, claimed_at, lease_until, lease_seconds)
  local last = tonumber(lease_until or 0) - tonumber(lease_seconds) - tonumber(claimed_at)
  return string.format('%.6f', tonumber(ran or 0) + math.max(0, last))
end

-- failure: {code, message} or nil. The fencing token grows: a worker that comes back cannot write any more.
local function end_without_worker(order, job_key, events_key, ended_key, job_id, kept, status, reason, failure)
  local text = published_text(events_key)
  local record = redis.call('HMGET', job_key, 'token', 'published')
  local usage = {prompt_tokens = 0, completion_tokens = tonumber(record[2] or 0), cached_tokens = 0}
  local fields = {'status', status, 'token', tonumber(record[1] or 0) + 1, 'usage', cjson.encode(usage)}
  local event = {status = status, usage = usage}
  if text ~= '' then
    fields[#fields + 1] = 'output'
    fields[#fields + 1] = cjson.encode({text = text, finish_reason = reason})
    event.finish_reason = reason
  end
  if failure then
    local reported = {code = failure[1], message = failure[2]}
    fields[#fields + 1] = 'error'
    fields[#fields + 1] = cjson.encode(reported)
    event.error = reported
  end
  end_job(order, job_key, events_key, ended_key, job_id, kept, cjson.encode(event), fields)
end
