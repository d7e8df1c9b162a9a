defmodule Causeway.Postgres.WAL.Timeline do
  @moduledoc false
  # Which log a position is in. A standby that becomes the primary goes on with the log from where it had got to, under
  # the next timeline; what the old primary had written after that point is in another log. So a position is good for
  # another timeline only up to where the two part.

  alias Causeway.Postgres.{LSN, WAL}
  alias Causeway.Postgres.WAL.Client

  @typedoc """
  `history` has the timelines before this one, the first one first, each with where it was left.
  """
  @type t :: %{
          system_id: String.t(),
          timeline: pos_integer,
          history: [{pos_integer, LSN.t()}]
        }

  @doc "Which server this is, and how far its log goes."
  @spec identify(Client.t()) :: {:ok, t, LSN.t()} | {:error, Exception.t()}
  def identify(client) do
    with {:ok, [[system, timeline, flushed | _]]} <- Client.query(client, "IDENTIFY_SYSTEM"),
         timeline = String.to_integer(timeline),
         {:ok, history} <- history(client, timeline) do
      server = %{system_id: system, timeline: timeline, history: history}
      {:ok, server, LSN.parse!(flushed)}
    end
  end

  defp history(_client, 1), do: {:ok, []}

  defp history(client, timeline) do
    with {:ok, [[_file, content]]} <- Client.query(client, "TIMELINE_HISTORY #{timeline}"),
         do: {:ok, parse(content)}
  end

  @doc """
  What a history file says; it may be shown as a bytea.

      iex> Causeway.Postgres.WAL.Timeline.parse("1\\t0/3000000\\tno recovery target specified\\n")
      [{1, 0x3000000}]
  """
  def parse("\\x" <> hex), do: hex |> Base.decode16!(case: :mixed) |> parse()

  def parse(content) do
    for line <- String.split(content, "\n"),
        [timeline, lsn | _] <- [String.split(line)],
        {timeline, ""} <- [Integer.parse(timeline)],
        {:ok, lsn} <- [LSN.parse(lsn)],
        do: {timeline, lsn}
  end

  @doc """
  Whether a log up to `flushed` has a position. Asked for one that it has not, the server would take all before it for
  confirmed, and never send what is written there.
  """
  @spec check(LSN.t(), LSN.t()) :: :ok | {:error, Exception.t()}
  def check(lsn, flushed) when lsn <= flushed, do: :ok
  def check(lsn, flushed), do: {:error, %WAL.Error{reason: {:ahead, lsn, flushed}}}

  @doc """
  Up to where positions of the server before are good for this one, which has a log up to `flushed`.
  """
  @spec common(t | nil, t, LSN.t()) :: {:ok, LSN.t()}
  def common(nil, _server, _flushed), do: {:ok, 0xFFFFFFFFFFFFFFFF}

  def common(%{system_id: one}, %{system_id: other}, _flushed) when one != other, do: {:ok, 0}

  def common(before, server, flushed) do
    before = before.history ++ [{before.timeline, 0xFFFFFFFFFFFFFFFF}]
    now = server.history ++ [{server.timeline, flushed}]
    {:ok, part(before, now, 0)}
  end

  # Where the last timeline that they share was left first.
  defp part([{timeline, one} | before], [{timeline, other} | now], _) when one == other,
    do: part(before, now, one)

  defp part([{timeline, one} | _], [{timeline, other} | _], _), do: min(one, other)
  defp part(_, _, lsn), do: lsn
end
