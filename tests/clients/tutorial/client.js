// The request of the tutorial's Node.js client: axios with the JSON as text, for which axios sends
// the Content-Type of a web form. Without axios, its place is taken by what it sends.
const fs = require('fs');

let axios;
try {
  axios = require('axios');
} catch {
  axios = { request };
}

async function request({ method, url, data }) {
  const headers = {
    Accept: 'application/json, text/plain, */*',
    'Content-Type': 'application/x-www-form-urlencoded',
    'User-Agent': 'axios/1.7.9',
    'Accept-Encoding': 'gzip, compress, deflate, br',
  };
  const response = await fetch(url, { method, headers, body: data });
  if (!response.ok) throw new Error(`Request failed with status code ${response.status}`);
  return { data: await response.json() };
}

const [, , address, picture, output] = process.argv;
const image = fs.readFileSync(picture).toString('base64');
const config = {
  method: 'POST',
  maxBodyLength: Infinity,
  url: `${address}/semantic-segmentation`,
  data: JSON.stringify({ image }),
};

axios.request(config)
  .then(({ data }) => {
    fs.writeFileSync(output, Buffer.from(data.result.image, 'base64'));
    console.log(`${data.result.labelMap.length} labels`);
  })
  .catch((error) => {
    console.error(error.message);
    process.exitCode = 1;
  });
