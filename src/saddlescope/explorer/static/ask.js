// Questions to the server: lines of JSON, the last of which is the answer.

/** Return the answer, `{result}` or `{error}`; `progress` is told shares on the way, a signal that aborts cancels. */
export async function ask(job, query, progress = () => {}, signal = undefined) {
  try {
    const response = await fetch(`/api/${job}?${query}`, { signal }), reader = response.body.getReader(), decoder = new TextDecoder();
    let text = "";
    for (;;) {
      const { done, value } = await reader.read();
      if (value) text += decoder.decode(value, { stream: true });
      let end;
      while ((end = text.indexOf("\n")) >= 0) {
        const line = JSON.parse(text.slice(0, end));
        text = text.slice(end + 1);
        if ("progress" in line) progress(line.progress);
        else return line;
      }
      if (done) return text ? JSON.parse(text) : { error: "the answer was cut short" };
    }
  } catch (error) {
    return { error: error.name === "AbortError" ? "cancelled" : "the explorer does not answer" };
  }
}
