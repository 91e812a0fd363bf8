-- Included by the scripts that move jobs of API keys with limits. The sorted set `llm:active:<owner>` has the key's jobs that
-- have not ended, if it had limits when they were admitted: scored 0 while they wait and 1 while they run.
local function active_key(owner) return 'llm:active:' .. owner end

local function note_running(owner, job_id) redis.call('ZADD', active_key(owner), 'XX', 1, job_id) end

local function note_waiting(owner, job_id) redis.call('ZADD', active_key(owner), 'XX', 0, job_id) end
