-- KEYS[1] a queue, or a group's own slot · ARGV[1] id, ARGV[2] token: this waiter is gone
local P, id, token = KEYS[1], ARGV[1], ARGV[2]
local registered = redis.call('HGET', P .. ':e', id)
if registered then
  local kept = {}
  for each in string.gmatch(registered, '%S+') do
    if each ~= token then
      kept[#kept + 1] = each
    end
  end
  if #kept > 0 then
    redis.call('HSET', P .. ':e', id, table.concat(kept, ' '))
  else
    redis.call('HDEL', P .. ':e', id)
  end
end
return redis.call('DEL', P .. ':e:' .. token)
