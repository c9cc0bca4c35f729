-- KEYS[1] a queue, or a group's own slot · ARGV[1] id, ARGV[2] token: this waiter is gone
local id, token = ARGV[1], ARGV[2]
local registered = call('HGET', P .. ':e', id)
if registered then
  local kept = {}
  for each in string.gmatch(registered, '%S+') do
    if each ~= token then
      kept[#kept + 1] = each
    end
  end
  if #kept > 0 then
    call('HSET', P .. ':e', id, table.concat(kept, ' '))
  else
    call('HDEL', P .. ':e', id)
  end
end
return call('DEL', P .. ':e:' .. token)
