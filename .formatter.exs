[
  inputs: [
    "{mix,.formatter}.exs",
    "{bench,examples,lib,test}/**/*.{ex,exs}"
  ]
]
