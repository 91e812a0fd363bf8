// The npm package `openai`: chat completions and responses, with its zod helpers and its tool runner.
import OpenAI from "openai";
import { zodFunction, zodResponseFormat, zodTextFormat, zodResponsesFunction } from "openai/helpers/zod";
import { z } from "zod";
import { assert, BASE_URL, EMBEDDING_BASE_URL, KEY, play, SERVICE } from "../shared/client_program.mjs";

const client = new OpenAI({ baseURL: BASE_URL, apiKey: KEY, maxRetries: 0 });
const question = { role: "user", content: "What is the capital of France?" };
const brief = { model: SERVICE.model, messages: [question], max_tokens: 24, temperature: 0 };
const City = z.object({ name: z.string().max(20), size: z.enum(["small", "large"]) });
const Weather = z.object({ city: z.string().max(20), unit: z.enum(["C", "F"]) });

async function chat() {
  const answer = await client.chat.completions.create(brief);
  assert.ok(answer.choices[0].message.content);
  assert.ok(answer.usage.completion_tokens > 0);
}

async function stream() {
  const whole = (await client.chat.completions.create(brief)).choices[0].message.content;
  let text = "";
  for await (const chunk of await client.chat.completions.create({ ...brief, stream: true })) {
    text += chunk.choices[0]?.delta?.content ?? "";
  }
  assert.equal(text, whole);
  const gathered = client.chat.completions.stream(brief);
  assert.equal((await gathered.finalMessage()).content, whole);
}

async function tools() {
  const request = { ...brief, max_tokens: 100, tools: [zodFunction({ name: "get_weather", parameters: Weather })] };
  const forced = { ...request, tool_choice: "required", parallel_tool_calls: false };
  const { message } = (await client.chat.completions.parse(forced)).choices[0];
  assert.equal(message.tool_calls.length, 1);
  Weather.parse(message.tool_calls[0].function.parsed_arguments);
  const result = { role: "tool", tool_call_id: message.tool_calls[0].id, content: "22 degrees" };
  const second = { ...request, messages: [question, message, result], tool_choice: "none" };
  assert.ok((await client.chat.completions.create(second)).choices[0].message.content);
}

// The runner calls the function, sends its result back, and asks again until the model answers.
async function tool_runner() {
  const asked = [];
  const tool = zodFunction({
    name: "get_weather",
    parameters: Weather,
    function: (weather) => {
      asked.push(weather);
      return "22 degrees";
    },
  });
  const tool_choice = { type: "function", function: { name: "get_weather" } };
  const runner = client.chat.completions.runTools({ ...brief, max_tokens: 100, tools: [tool], tool_choice });
  await runner.done();
  assert.ok(Weather.parse(asked[0]));
}

async function tool_runner_that_streams() {
  const tool = zodFunction({ name: "get_weather", parameters: Weather, function: () => "22 degrees" });
  const tool_choice = { type: "function", function: { name: "get_weather" } };
  const runner = client.chat.completions.runTools({ ...brief, stream: true, max_tokens: 100, tools: [tool], tool_choice });
  await runner.done();
  assert.deepEqual(runner.messages.map((message) => message.role), ["user", "assistant", "tool"]);
}

async function structured_output() {
  const request = { ...brief, max_tokens: 100, response_format: zodResponseFormat(City, "city") };
  const { message } = (await client.chat.completions.parse(request)).choices[0];
  City.parse(message.parsed);
  const again = { ...request, messages: [question, message, { role: "user", content: "And another?" }] };
  City.parse((await client.chat.completions.parse(again)).choices[0].message.parsed);
}

// Formats and keywords that constrain nothing in JSON Schema, as zod writes them: strict through the package's helper, and
// without it what the helper itself refuses.
async function structured_output_of_many_types() {
  const formats = { id: z.cuid2().max(30), code: z.string().startsWith("A").max(20), phone: z.e164(), count: z.int32(), address: z.ipv4(), host: z.hostname() };
  const Strict = z.object({ ...formats, note: z.string().max(5).nullable() });
  const Free = z.object({ ...formats, blob: z.base64().max(20), labels: z.record(z.string(), z.string().max(5)) });
  const schema = { name: "account", schema: z.toJSONSchema(Free) };
  for (const response_format of [zodResponseFormat(Strict, "account"), { type: "json_schema", json_schema: schema }]) {
    const choice = (await client.chat.completions.create({ ...brief, max_tokens: 400, response_format })).choices[0];
    assert.equal(choice.finish_reason, "stop");
    const account = JSON.parse(choice.message.content);
    assert.ok(account.code.startsWith("A"));
    z.int32().parse(account.count);
  }
}

async function embeddings() {
  const there = new OpenAI({ baseURL: EMBEDDING_BASE_URL, apiKey: KEY, maxRetries: 0 });
  const answer = await there.embeddings.create({ model: SERVICE.embedding_model, input: ["a cat", "a dog"] });
  assert.deepEqual(answer.data.map((item) => item.embedding.length), [SERVICE.embedding_dimensions, SERVICE.embedding_dimensions]);
}

async function responses() {
  const request = { model: SERVICE.model, input: question.content, max_output_tokens: 100, temperature: 0 };
  const first = await client.responses.create(request);
  assert.ok(first.output_text);
  let text = "";
  for await (const event of await client.responses.create({ ...request, stream: true })) {
    if (event.type === "response.output_text.delta") text += event.delta;
  }
  assert.equal(text, first.output_text);
  City.parse((await client.responses.parse({ ...request, text: { format: zodTextFormat(City, "city") } })).output_parsed);
  const tools = [zodResponsesFunction({ name: "get_weather", parameters: Weather })];
  const called = await client.responses.parse({ ...request, tools, tool_choice: "required", parallel_tool_calls: false });
  const [call] = called.output;
  Weather.parse(call.parsed_arguments);
  const output = { type: "function_call_output", call_id: call.call_id, output: "22 degrees" };
  const input = [question, ...called.output, output];
  assert.ok((await client.responses.create({ ...request, input, tools, tool_choice: "none" })).output_text);
}

// What a stream gathers goes back in the next turn, as it is.
async function responses_that_stream() {
  const request = { model: SERVICE.model, max_output_tokens: 100, temperature: 0 };
  const format = zodTextFormat(City, "city");
  const first = await client.responses.stream({ ...request, input: [question], text: { format } }).finalResponse();
  City.parse(first.output_parsed);
  const tools = [zodResponsesFunction({ name: "get_weather", parameters: Weather })];
  const input = [question, ...first.output, question];
  const forced = { ...request, input, tools, tool_choice: "required", parallel_tool_calls: false };
  const called = await client.responses.stream(forced).finalResponse();
  Weather.parse(called.output[0].parsed_arguments);
  const output = [{ type: "input_text", text: "22 degrees" }];
  const result = { type: "function_call_output", call_id: called.output[0].call_id, output };
  const answer = client.responses.stream({ ...request, input: [result], previous_response_id: called.id });
  assert.ok((await answer.finalResponse()).output_text);
}

async function errors() {
  const long = { ...brief, messages: [{ role: "user", content: "word ".repeat(20000) }] };
  await assert.rejects(client.chat.completions.create(long), { status: 400, code: "context_length_exceeded" });
  await assert.rejects(client.chat.completions.create({ ...brief, model: "no-such-model" }), OpenAI.NotFoundError);
}

await play({
  chat,
  stream,
  tools,
  tool_runner,
  tool_runner_that_streams,
  structured_output,
  structured_output_of_many_types,
  embeddings,
  responses,
  responses_that_stream,
  errors,
});
