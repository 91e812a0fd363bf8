// The model that is served, as GET /v1/models shows it. Until it has been read, nothing is known of it.

export let model = { id: "", context_tokens: null, default_params: {} };

export function keepModel(read) {
  model = read;
}
