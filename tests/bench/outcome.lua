-- Makes wrk report as client.py does: one line of JSON, the last of its output.
-- The arguments after the URL: the size of a body to POST in bytes, or 0 for a GET; and whether
-- each request is to be for another path.
init = function(args)
   local size = tonumber(args[1])
   if args[2] == "varied" then
      local count = 0
      request = function()
         count = count + 1
         return wrk.format(nil, wrk.path .. "items/" .. count .. "?page=" .. count)
      end
   end
   if size > 0 then
      wrk.method = "POST"
      wrk.body = string.rep("x", size)
   end
end

done = function(summary, latency, requests)
   local e = summary.errors
   io.write(string.format(
      '{"requests": %d, "errors": %d, "seconds": %.6f, "size_bytes": %d, "p50_us": %d, "p99_us": %d}\n',
      summary.requests, e.connect + e.read + e.write + e.status + e.timeout,
      summary.duration / 1e6, summary.bytes, latency:percentile(50), latency:percentile(99)))
end
