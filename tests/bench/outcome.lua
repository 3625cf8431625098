-- Makes wrk report as client.py does: one line of JSON, the last of its output.
done = function(summary, latency, requests)
   local e = summary.errors
   io.write(string.format(
      '{"requests": %d, "errors": %d, "seconds": %.6f}\n',
      summary.requests, e.connect + e.read + e.write + e.status + e.timeout,
      summary.duration / 1e6))
end
