-- Included by the scripts that notify API processes of a change. listeners: of the job's record, the channels of those that
-- wait for it, with spaces between; false or nil: no process waits.
local function each_listener(listeners) return string.gmatch(listeners or '', '%S+') end

local function notify(listeners, message)
  for channel in each_listener(listeners) do redis.call('PUBLISH', channel, message) end
end
