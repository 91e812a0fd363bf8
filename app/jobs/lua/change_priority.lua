-- Change the priority of a waiting job: its place keeps its time, and takes the class of the new priority. What aging has
-- made of it begins again from there. A job that has the priority already stays as it is.
-- KEYS: job
-- ARGV: order, id, priority
-- Returns nil (unknown) | the status; only a queued job is changed
-- include: order
local status, priority, place, tenant = unpack(redis.call('HMGET', KEYS[1], 'status', 'priority', 'place', 'tenant'))
if not status then return nil end
if status ~= 'queued' or priority == ARGV[3] then return status end
local order = order_of(ARGV[1])
place = place_in_class(place, ARGV[3])
redis.call('HSET', KEYS[1], 'priority', ARGV[3], 'place', place)
local is_in_order = redis.call('ZSCORE', order.waiting, ARGV[2]) -- one for later is not yet
if is_in_order then enter_order(order, tenant or '', ARGV[2], place, ARGV[3]) end
return status
