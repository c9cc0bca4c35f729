-- Of `publish_locked`, before the text of publish.lua: take_lock(key, id, life | '') -> who holds it now. What it takes here, it holds for a
-- task that is stored below.
local locked = {}

local function take_lock(name, id, life)
  local held_by = locked[name] or holder(name, id)
  if held_by then return held_by end
  vacate(name, id)
  flush()
  locked[name] = id
  local key = P .. ':u:' .. name
  if call('GET', key) == id then return id end
  if life == '' then
    call('SET', key, id)
  else
    call('SET', key, id, 'PX', string.format('%.0f', math.max(1, tonumber(life) * 1000)))
  end
  return id
end
