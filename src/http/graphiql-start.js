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

// What the sign-in has left for scripts; the session itself is in a cookie that none reads.
const csrf = /(?:^|; )(?:__Host-)?virtgraph-csrf=([^;]+)/.exec(document.cookie)?.[1];

async function ask(query, variables, headers) {
  const answer = await fetch('/graphql', {
    method: 'POST',
    headers: { 'content-type': 'application/json', ...headers },
    body: JSON.stringify({ query, variables }),
  });
  const { data, errors } = await answer.json();
  return { status: answer.status, data, problem: errors?.[0]?.message };
}

function graphiql(headers, connectionParams) {
  const page = document.createElement('div');
  page.className = 'graphiql-page';
  root.append(page);
  self.YogaGraphiQL.renderYogaGraphiQL(page, {
    title: 'Virtgraph',
    endpoint: '/graphql',
    subscriptionsProtocol: 'WS',
    additionalHeaders: headers,
    connectionParams,
    defaultQuery: document.querySelector('#default-query').textContent,
    shouldPersistHeaders: false,
  });
}

const SIGN_IN = `mutation SignIn($input: SignInInput!) {
  signIn(input: $input) { session { id } errors { code message } }
}`;
const SIGN_OUT = 'mutation SignOut { signOut(input: {}) { errors { message } } }';

function askWho({ tokenProblem } = {}) {
  const card = document.createElement('main');
  card.className = 'sign-in';
  card.innerHTML = `
    <h1>Virtgraph</h1>
    <form name="person">
      <label>Domain <input name="domain" autocomplete="organization" spellcheck="false" placeholder="/"></label>
      <label>Account <input name="account" autocomplete="off" spellcheck="false" required></label>
      <label>User <input name="user" autocomplete="username" spellcheck="false" required></label>
      <label>Password <input name="password" type="password" autocomplete="current-password" required></label>
      <label hidden>Code of your authenticator
        <input name="code" autocomplete="one-time-code" spellcheck="false" placeholder="or a recovery code"></label>
      <p role="alert" hidden></p>
      <button>Sign in</button>
    </form>
    <details>
      <summary>Use an access token</summary>
      <form name="token">
        <label>Access token <input name="token" type="password" autocomplete="off" required></label>
        <p role="alert" hidden></p>
        <button>Use token</button>
      </form>
    </details>`;
  const [person, withToken] = card.querySelectorAll('form');
  person.addEventListener('submit', (event) => {
    event.preventDefault();
    void signIn(person);
  });
  withToken.addEventListener('submit', (event) => {
    event.preventDefault();
    sessionStorage.setItem(KEY, withToken.elements.namedItem('token').value.trim());
    location.reload();
  });
  root.append(card);
  if (!tokenProblem) return person.elements.namedItem('account').focus();
  card.querySelector('details').open = true;
  tell(withToken, tokenProblem);
}

// Whatever the browser calls it, it is this to whoever reads it.
const UNANSWERED = 'Virtgraph does not answer. Try again in a moment.';

function tell(where, problem) {
  const alert = where.querySelector('[role=alert]');
  alert.textContent = problem;
  alert.hidden = problem === '';
}

async function signIn(form) {
  const field = (name) => form.elements.namedItem(name);
  const button = form.querySelector('button');
  const given = (name) => field(name).value.trim() || null;
  const input = { account: given('account'), user: given('user'), password: field('password').value, cookie: true };
  button.disabled = true;
  tell(form, '');
  try {
    const { data, problem } = await ask(SIGN_IN, { input: { ...input, domain: given('domain'), code: given('code') } });
    const error = data?.signIn.errors[0];
    if (data?.signIn.session) return location.reload();
    if (error?.code === 'SECOND_FACTOR_REQUIRED') {
      field('code').closest('label').hidden = false;
      field('code').focus();
    } else tell(form, error?.message ?? problem);
  } catch {
    tell(form, UNANSWERED);
  }
  button.disabled = false;
}

function showWho(name, headers) {
  const bar = document.createElement('header');
  bar.innerHTML = '<span role="alert" hidden></span><span class="who"></span><button>Sign out</button>';
  bar.querySelector('.who').textContent = name;
  bar.querySelector('button').addEventListener('click', () => void signOut(bar, headers));
  root.append(bar);
}

// Whoever leaves his place must know whether he is still signed in; who was signed out elsewhere is.
async function signOut(bar, headers) {
  try {
    const { status, data, problem } = await ask(SIGN_OUT, {}, headers);
    const refused = problem ?? data?.signOut.errors[0]?.message;
    if (status === 401 || !refused) return location.reload();
    tell(bar, refused);
  } catch {
    tell(bar, UNANSWERED);
  }
}

// What is refused is forgotten, so that the page asks again instead of failing for ever.
async function start() {
  if (token) {
    const authorization = `Bearer ${token}`;
    const { status } = await fetch('/graphql?query=%7B__typename%7D', { headers: { authorization } });
    if (status !== 401) return graphiql({ authorization }, { authorization });
    sessionStorage.removeItem(KEY);
    return askWho({ tokenProblem: 'Nobody has this token.' });
  }
  if (!csrf) return askWho();
  const headers = { 'x-virtgraph-csrf': csrf };
  const { data } = await ask('{ viewer { name } }', {}, headers);
  if (!data) return askWho();
  showWho(data.viewer.name, headers);
  graphiql(headers, {});
}

await start();
