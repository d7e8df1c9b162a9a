defmodule Causeway.Postgres.TypesQueryTest do
  # Every type through a connection: as a parameter, as a column, in a record, and in a result that is text.
  use ExUnit.Case, async: true

  alias Causeway.{Postgres, PostgresSamples, PostgresServer}

  @moduletag :postgres
  @moduletag timeout: 300_000

  # Not alike in text.
  @named ~w(regclass)

  setup_all do
    database = PostgresServer.database!()
    PostgresServer.psql!(PostgresServer.shared(), PostgresSamples.setup(), database[:database])
    {:ok, conn: start_supervised!({Postgres, [json: Causeway.TestJson] ++ database})}
  end

  for {type, samples} <- PostgresSamples.all() do
    @tag samples: samples, type: type
    test "#{type}", %{type: type, samples: samples, conn: conn} do
      query = fn select, params -> Postgres.query!(conn, "select #{select}", params).rows end
      cast = if type == "cstring", do: "$1::text::cstring", else: "$1::#{type}"

      for {{literal, term}, i} <- Enum.with_index(samples) do
        term = PostgresSamples.here(term)
        value = "'#{String.replace(literal, "'", "''")}'::#{type}"
        select = "#{value}, #{cast}, format('%s', #{value}) = format('%s', #{cast})"
        assert query.(select, [term]) === [[term, term, true]]

        # A few; others are compared in codec_test.exs.
        if type not in @named and i < 3,
          do: assert([[_, ^term]] = query.("'=r/postgres'::aclitem, #{cast}", [term]))
      end
    end
  end
end
