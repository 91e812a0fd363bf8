-- Write the output of a step's sequences. An output is rejected if another worker has claimed its job since (fencing).
-- KEYS: running, ended, then of each output: job, events
-- ARGV: order, kept (as of end_job), names of the record's fields (comma-separated), then of each output: id, fencing
--       token, delta JSON ('' = none), token ids JSON, tokens published before, and after, this delta,
--       '1' when a client follows it, end JSON ('' = not the end), how many strings follow, and these: the end's
--       field/value pairs
-- Returns for each 1 | 0 when fenced | -1 when tokens published before this delta are missing: nothing of it is written,
-- they come first. One message notifies a process of all that it waits for, a line each.
-- Idempotent: repeating a call returns the same verdicts and writes nothing twice.
-- include: add_event
-- include: end_job
-- include: notify
local HEAD = 9 -- strings of each output before its field/value pairs

local order -- decoded where a job ends
local messages = {} -- their lines, by channel

local function add_line(listeners, line)
  for channel in each_listener(listeners) do
    messages[channel] = messages[channel] or {}
    table.insert(messages[channel], line)
  end
end

-- The notification of a final job: the record itself as a JSON list, or its id where the record is large.
local function record_notification(job_key, job_id)
  local names = {}
  for name in string.gmatch(ARGV[3], '[^,]+') do names[#names + 1] = name end
  local values = redis.call('HMGET', job_key, unpack(names))
  local bytes = 0
  for _, value in ipairs(values) do bytes = bytes + (value and #value or 0) end
  return bytes > NOTIFICATION_BYTES and job_id or cjson.encode(values)
end

local function write(job_key, events_key, first, fields)
  local job_id, token, delta, tokens, before, after, followed, end_event = unpack(ARGV, first, first + HEAD - 2)
  local record = redis.call('HMGET', job_key, 'token', 'status', 'published', 'listeners')
  if record[1] ~= token or record[2] == 'queued' then return 0 end
  if record[2] ~= 'processing' then return 1 end -- ended under this very token
  local published = tonumber(record[3] or 0)
  if published < tonumber(before) then return -1 end
  if delta ~= '' and published == tonumber(before) then
    local goes_alone = end_event == '' -- else the end is notified of
    local is_followed = goes_alone and followed == '1'
    local notification = add_event(events_key, job_id, is_followed, 'delta', delta, 'tokens', tokens)
    if goes_alone then redis.call('HSET', job_key, 'published', after) end
    if is_followed then add_line(record[4], notification) end
  end
  if end_event ~= '' then
    redis.call('ZREM', KEYS[1], job_id)
    order = order or order_of(ARGV[1])
    end_job(order, job_key, events_key, KEYS[2], job_id, ARGV[2], end_event, fields)
    if record[4] then add_line(record[4], record_notification(job_key, job_id)) end
  end
  return 1
end

local verdicts, first = {}, 4
for key = 3, #KEYS, 2 do
  local strings = tonumber(ARGV[first + HEAD - 1])
  local fields = {unpack(ARGV, first + HEAD, first + HEAD + strings - 1)}
  verdicts[#verdicts + 1] = write(KEYS[key], KEYS[key + 1], first, fields)
  first = first + HEAD + strings
end
for channel, lines in pairs(messages) do redis.call('PUBLISH', channel, table.concat(lines, '\n')) end
return verdicts
