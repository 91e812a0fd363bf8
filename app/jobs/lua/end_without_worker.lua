-- Included, after end_job, by the scripts that end a job which no worker holds: what has been published of its output
-- stays in its record.
local function published_text(events_key)
  local texts = {}
  for _, entry in ipairs(redis.call('XRANGE', events_key, '-', '+')) do
    local fields = entry[2] -- type, <type>, data, <JSON>, ...
    if fields[2] == 'delta' then texts[#texts + 1] = cjson.decode(fields[4]).text end
  end
  return table.concat(texts)
end

-- failure: {code, message} or nil. The fencing token grows: a worker that comes back cannot write any more.
local function end_without_worker(job_key, events_key, ended_key, job_id, kept_seconds, status, reason, failure)
  local text = published_text(events_key)
  local fields = {'status', status, 'token', tonumber(redis.call('HGET', job_key, 'token') or 0) + 1}
  local event = {status = status}
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
  end_job(job_key, events_key, ended_key, job_id, kept_seconds, cjson.encode(event), fields)
end
