-- Included by the scripts that bound what an owner stores: the bytes of its files, and of what its batches have written
-- so far. Entries whose hash has expired are removed.
local LEAST_BYTES = 16384 -- that each counts: its keys take memory too, and the entries are read one by one

local function stored_bytes(files_key, batches_key, file_prefix, batch_prefix)
  local total = 0
  for _, file_id in ipairs(redis.call('ZRANGE', files_key, 0, -1)) do
    local bytes = redis.call('HGET', file_prefix .. file_id, 'bytes')
    if bytes then
      total = total + math.max(LEAST_BYTES, tonumber(bytes))
    else
      redis.call('ZREM', files_key, file_id)
    end
  end
  for _, batch_id in ipairs(redis.call('ZRANGE', batches_key, 0, -1)) do
    local record = redis.call('HMGET', batch_prefix .. batch_id, 'status', 'completed_bytes', 'failed_bytes')
    if not record[1] then
      redis.call('ZREM', batches_key, batch_id)
    elseif record[1] == 'in_progress' then -- else they are files
      total = total + math.max(LEAST_BYTES, tonumber(record[2] or 0) + tonumber(record[3] or 0))
    else
      total = total + LEAST_BYTES
    end
  end
  return total
end
