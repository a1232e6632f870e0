// Starts GraphiQL. The link /graphiql#token=… signs in: a fragment is never sent to a server, and leaves the address
// bar here before anything else runs.
const KEY = 'virtgraph.token';
const tokenInAddress = () => new URLSearchParams(location.hash.slice(1)).get('token');
const given = tokenInAddress();
if (given) {
  sessionStorage.setItem(KEY, given);
  history.replaceState(null, '', location.pathname + location.search);
}
// In a tab that is here already the link changes nothing but the fragment, which loads nothing by itself.
addEventListener('hashchange', () => {
  if (tokenInAddress()) location.reload();
});
const token = sessionStorage.getItem(KEY);
const root = document.querySelector('#root');

// One file for all workers: Monaco names them by what they understand.
self.MonacoEnvironment = {
  globalAPI: false,
  getWorkerUrl: (_module, label) => {
    if (label === 'graphql') return '/graphiql/graphql-worker.js';
    return label === 'json' ? '/graphiql/json-worker.js' : '/graphiql/editor-worker.js';
  },
};

function askForToken(problem) {
  const form = document.createElement('form');
  form.className = 'sign-in';
  form.innerHTML = `
    <h1>Virtgraph</h1>
    <label>Access token <input name="token" type="password" autocomplete="off" required autofocus></label>
    ${problem}
    <button>Sign in</button>`;
  form.addEventListener('submit', (event) => {
    event.preventDefault();
    sessionStorage.setItem(KEY, form.elements.namedItem('token').value.trim());
    location.reload();
  });
  root.append(form);
}

// A token that is refused is forgotten, so that the page asks again instead of failing for ever.
async function isKnown() {
  const answer = await fetch('/graphql?query=%7B__typename%7D', { headers: { authorization: `Bearer ${token}` } });
  if (answer.status === 401) sessionStorage.removeItem(KEY);
  return answer.status !== 401;
}

if (token && (await isKnown())) {
  const authorization = `Bearer ${token}`;
  self.YogaGraphiQL.renderYogaGraphiQL(root, {
    title: 'Virtgraph',
    endpoint: '/graphql',
    subscriptionsProtocol: 'WS',
    additionalHeaders: { authorization },
    connectionParams: { authorization },
    defaultQuery: document.querySelector('#default-query').textContent,
    shouldPersistHeaders: false,
  });
} else askForToken(token ? '<span role="alert">Nobody has this token.</span>' : '');
