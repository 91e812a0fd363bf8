// The npm package `@langchain/openai`.
import { ContextOverflowError } from "@langchain/core/errors";
import { HumanMessage } from "@langchain/core/messages";
import { tool } from "@langchain/core/tools";
import { ChatOpenAI, OpenAIEmbeddings } from "@langchain/openai";
import { z } from "zod";
import { assert, BASE_URL, EMBEDDING_BASE_URL, KEY, play, SERVICE } from "../shared/client_program.mjs";

const here = { model: SERVICE.model, apiKey: KEY, configuration: { baseURL: BASE_URL }, maxRetries: 0, temperature: 0 };
const brief = new ChatOpenAI({ ...here, maxTokens: 24 });
const longer = new ChatOpenAI({ ...here, maxTokens: 100 });
const question = new HumanMessage("What is the capital of France?");
const City = z.object({ name: z.string().max(20), size: z.enum(["small", "large"]) });
const Weather = z.object({ city: z.string().max(20), unit: z.enum(["C", "F"]) });
const weather = tool(({ city, unit }) => `22 ${unit} in ${city}`, { name: "get_weather", description: "The weather in a city", schema: Weather });

async function chat() {
  const answer = await brief.invoke([question]);
  assert.ok(answer.text);
  assert.ok(answer.usage_metadata.output_tokens > 0);
  assert.ok((await brief.invoke([question, answer, new HumanMessage("And of Spain?")])).text);
}

async function stream() {
  let text = "";
  for await (const piece of await brief.stream([question])) text += piece.text;
  assert.equal(text, (await brief.invoke([question])).text);
}

async function tools() {
  const called = await longer.bindTools([weather], { tool_choice: "any", parallel_tool_calls: false }).invoke([question]);
  assert.equal(called.tool_calls.length, 1);
  Weather.parse(called.tool_calls[0].args);
  const result = await weather.invoke(called.tool_calls[0]);
  const answer = await longer.bindTools([weather], { tool_choice: "none" }).invoke([question, called, result]);
  assert.ok(answer.text);
}

async function structured_output() {
  for (const method of ["jsonSchema", "functionCalling"]) {
    City.parse(await longer.withStructuredOutput(City, { method, name: "city" }).invoke([question]));
  }
}

async function embeddings() {
  const embeddings = new OpenAIEmbeddings({ model: SERVICE.embedding_model, apiKey: KEY, configuration: { baseURL: EMBEDDING_BASE_URL }, maxRetries: 0 });
  const vectors = await embeddings.embedDocuments(["a cat", "a dog"]);
  assert.deepEqual(vectors.map((vector) => vector.length), [SERVICE.embedding_dimensions, SERVICE.embedding_dimensions]);
}

async function responses() {
  const llm = new ChatOpenAI({ ...here, maxTokens: 100, useResponsesApi: true });
  // By name: with "any" this release sends a response's tools without a tool_choice.
  const called = await llm.bindTools([weather], { tool_choice: "get_weather", parallel_tool_calls: false }).invoke([question]);
  Weather.parse(called.tool_calls[0].args);
  assert.ok((await llm.invoke([question, called, await weather.invoke(called.tool_calls[0])])).text);
}

// Pieces of a stream, put together, go back in the next turn, as does what was parsed.
async function responses_that_stream() {
  for (const outputVersion of ["v0", "v1"]) {
    const llm = new ChatOpenAI({ ...here, maxTokens: 100, useResponsesApi: true, outputVersion });
    let called;
    const forced = llm.bindTools([weather], { tool_choice: "get_weather", parallel_tool_calls: false });
    for await (const piece of await forced.stream([question])) called = called ? called.concat(piece) : piece;
    Weather.parse(called.tool_calls[0].args);
    assert.ok(called.usage_metadata.output_tokens > 0);
    assert.ok((await llm.invoke([question, called, await weather.invoke(called.tool_calls[0])])).text);
    const { raw, parsed } = await llm.withStructuredOutput(City, { name: "city", includeRaw: true }).invoke([question]);
    City.parse(parsed);
    assert.ok((await llm.invoke([question, raw, question])).text);
  }
}

async function errors() {
  await assert.rejects(brief.invoke("word ".repeat(20000)), (error) => ContextOverflowError.isInstance(error));
}

await play({ chat, stream, tools, structured_output, embeddings, responses, responses_that_stream, errors });
